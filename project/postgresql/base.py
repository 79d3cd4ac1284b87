"""The connection: each wait ends by our clock, and what one thread sees of a lost server all others know at once."""

import select
import threading
import time
from typing import Any

import psycopg
from django.db import InterfaceError, OperationalError
from django.db.backends.postgresql import base
from psycopg import IsolationLevel
from psycopg.pq import ConnStatus

from project.postgresql.limits import Limits, of_role
from project.postgresql.schema import DatabaseSchemaEditor

TRUST_SECONDS = 0.1  # a connection used so lately is not looked at before it is used again
TURN_SECONDS = 0.1  # while PostgreSQL is away one thread tries to connect; others wait so long to hear of it

# By `SET` and not as startup options: a pooler in between refuses those. What is prepared (queues/sql/statement.py,
# nothing else) is planned once: planning took PostgreSQL a third of the time of accepting a request. By index, then,
# even if the table was small at the time: as if disks were solid state, and a table that is read as a whole sixteen
# times as large. Nothing here runs for so long that compiling it pays: it took two thirds of the look at 20,000 queues.
# PostgreSQL soon frees the locks of a process whose machine vanished, or that gave up waiting.
SESSION = {
    "tcp_keepalives_idle": "5",
    "tcp_keepalives_interval": "2",
    "tcp_keepalives_count": "3",
    "client_connection_check_interval": "1s",
    "plan_cache_mode": "force_generic_plan",
    "random_page_cost": "1.1",
    "seq_page_cost": "16",
    "jit": "off",
}


class Server:
    """What this process knows of PostgreSQL. `epoch` counts losses: an older connection is not used again."""

    def __init__(self) -> None:
        self.epoch = 0
        self.away = False
        self._turn = threading.Lock()

    def lost(self, epoch: int) -> None:
        """A connection of that epoch broke: the others of it are as dead, or soon found to be."""
        with self._lock:
            if self.epoch == epoch:
                self.epoch += 1

    def connect(self, params: dict[str, Any]) -> "BoundedConnection":
        """A new connection. While PostgreSQL is away one thread tries and the others raise OperationalError at once."""
        if not self.away:
            return self._connect(params)
        if not self._turn.acquire(timeout=TURN_SECONDS):
            raise psycopg.OperationalError("PostgreSQL is away: another thread is trying to reach it")
        try:
            if self.away:
                return self._connect(params)
        finally:
            self._turn.release()
        return self._connect(params)

    def _connect(self, params: dict[str, Any]) -> "BoundedConnection":
        epoch = self.epoch
        try:
            connection = BoundedConnection.connect(**params)
        except psycopg.OperationalError:
            self.away = True
            raise
        self.away = False
        connection.epoch = epoch
        return connection

    _lock = threading.Lock()


server = Server()


class BoundedConnection(psycopg.Connection[Any]):
    """psycopg's, which waits at most `limit` seconds for an answer. One that does not come closes the connection."""

    epoch = 0
    limit = 5.0

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        """Raises psycopg.OperationalError: PostgreSQL did not answer, or is gone."""
        try:
            return super().wait(gen, interval, self.limit if timeout is None else timeout)
        except psycopg.OperationalError as error:
            if self.pgconn.status != ConnStatus.OK:
                server.lost(self.epoch)
            elif timeout is None and error.sqlstate is None and not isinstance(error, psycopg.errors.PipelineAborted):
                # No word from PostgreSQL: our clock ended it. Whatever answer came now would be to the wrong question.
                self.pgconn.finish()
                server.away = True  # until somebody reaches it
                server.lost(self.epoch)
                raise psycopg.OperationalError(f"PostgreSQL did not answer within {self.limit:g} s") from None
            raise


class DatabaseWrapper(base.DatabaseWrapper):
    """Django's, which replaces a connection that is known to be dead before anything is sent on it.

    `wanted` are the limits that what runs next has to keep to. `keeps_session`: what holds a lock of its session finds
    a loss out by itself, and is never given another connection unasked.
    """

    SchemaEditorClass = DatabaseSchemaEditor

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.wanted: Limits = of_role()
        self.keeps_session = False
        self._applied: Limits | None = None
        self._used = 0.0

    def ensure_connection(self) -> None:
        """Have a connection that works, as far as one can know without asking, with the limits that are wanted."""
        connection: Any = self.connection
        if connection is not None and not self.in_atomic_block and self._applied is not None and self.autocommit:
            if not self.keeps_session and self._is_lost(connection):
                self.close()
            elif self._applied is not self.wanted:
                with self.wrap_database_errors:
                    self._apply(connection, {})
        super().ensure_connection()

    def close_if_unusable_or_obsolete(self) -> None:
        """Django's look between requests. It fails nobody: who needs a connection hears that there is none."""
        try:
            super().close_if_unusable_or_obsolete()
        except (OperationalError, InterfaceError):
            self.close()

    def _is_lost(self, connection: Any) -> bool:
        """Whether PostgreSQL was lost since this connection was made, or has something to say that nobody asked."""
        if connection.epoch != server.epoch:
            return True
        before, self._used = self._used, time.monotonic()
        if self._used - before < TRUST_SECONDS or connection.closed:
            return False
        poll = select.poll()
        poll.register(connection.pgconn.socket, select.POLLIN)
        if poll.poll(0) and not self.is_usable():
            server.lost(connection.epoch)
            return True
        return False

    def get_new_connection(self, conn_params: dict[str, Any]) -> BoundedConnection:
        self.isolation_level = IsolationLevel.READ_COMMITTED
        self._applied = None
        connection = server.connect(conn_params)
        connection.limit = self.wanted.answer
        self._used = time.monotonic()
        return connection

    def init_connection_state(self) -> None:
        super().init_connection_state()
        self._apply(self.connection, SESSION)

    def _apply(self, connection: Any, others: dict[str, str]) -> None:
        """One round trip."""
        wanted = self.wanted
        values = others | {
            "statement_timeout": f"{int(wanted.statement * 1000)}ms",
            "lock_timeout": f"{int(wanted.lock * 1000)}ms",
            "idle_in_transaction_session_timeout": f"{int(wanted.idle * 1000)}ms",
        }
        connection.execute("SELECT " + ", ".join(f"set_config('{n}', '{v}', false)" for n, v in values.items()))
        connection.limit = wanted.answer
        self._applied = wanted
