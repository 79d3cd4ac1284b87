"""Dispatchers and workers hold advisory locks: they start only where a session of PostgreSQL is theirs for long."""

from django.core.management.base import CommandError
from django.db import Error as DatabaseError

from project.postgresql import pooling


def refuse_borrowed_sessions() -> None:
    """Raises CommandError behind a pooler in transaction mode. While PostgreSQL is away nothing is refused."""
    try:
        borrowed = pooling.by_transaction()
    except DatabaseError:
        return
    if borrowed:
        raise CommandError(pooling.REFUSAL)
