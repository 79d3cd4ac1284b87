"""How many requests one process serves at once, whatever threads its server has: each in a slot with its connection.

Threads that stream events wait outside of the slots. So there may be many of them, and they neither crowd the requests
that want an answer nor hold connections to PostgreSQL.
"""

from collections.abc import Callable, Iterable
from queue import SimpleQueue
from typing import Any

from django.db import DEFAULT_DB_ALIAS, connections

Application = Callable[[dict[str, Any], Any], Iterable[bytes]]


class Slots:
    """A WSGI application that runs at most `count` requests of another one at once; the others wait for their turn."""

    def __init__(self, application: Application, count: int) -> None:
        self.application = application
        self.free: SimpleQueue[Any] = SimpleQueue()
        for _ in range(count):
            connection = connections.create_connection(DEFAULT_DB_ALIAS)
            connection.inc_thread_sharing()  # used by whichever thread has the slot, by one at a time
            self.free.put(connection)

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if environ.get("PATH_INFO", "").startswith("/health/"):
            return self.application(environ, start_response)  # never behind those who wait for a server
        connection = self.free.get()
        connections[DEFAULT_DB_ALIAS] = connection
        try:
            return self.application(environ, start_response)
        finally:
            del connections[DEFAULT_DB_ALIAS]
            self.free.put(connection)
