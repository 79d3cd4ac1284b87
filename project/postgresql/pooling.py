"""Whether a pooler stands between us and PostgreSQL that gives a session away after each transaction.

A dispatcher leads, and a worker lives, by an advisory lock of its session: behind PgBouncer's transaction mode two
dispatchers would lead at once.
"""

from contextlib import closing

from django.db import DEFAULT_DB_ALIAS, connections
from django.db.backends.base.base import BaseDatabaseWrapper

ROUNDS = 3  # a pooler that serves many may give the same server back by chance
REFUSAL = (
    "A pooler in transaction mode stands before PostgreSQL. Dispatchers and workers need sessions of their own:"
    " let DATABASE_URL name PostgreSQL itself, or a pool with pool_mode=session."
)


def by_transaction() -> bool:
    """Whether our sessions are somebody else's between two transactions. Raises DatabaseError if nobody answers.

    Costs one query where no pooler is. One in session mode passes.
    """
    with closing(connections.create_connection(DEFAULT_DB_ALIAS)) as one:
        served_by = _server(one)
        if one.connection.info.backend_pid == served_by:  # what PostgreSQL itself said when it let us in
            return False
        return any(_shared(one) for _ in range(ROUNDS))


def _shared(one: BaseDatabaseWrapper) -> bool:
    """Whether another client in a transaction has, or takes, the server process that serves `one`."""
    before = _server(one)
    with closing(connections.create_connection(DEFAULT_DB_ALIAS)) as other:
        other.set_autocommit(False)
        try:
            return _server(other) == before or _server(one) != before
        finally:
            other.rollback()


def _server(connection: BaseDatabaseWrapper) -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        return int(cursor.fetchone()[0])
