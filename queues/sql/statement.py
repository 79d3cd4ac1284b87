"""Runs a hot statement on Django's connection as psycopg runs it best: bound and prepared by the server."""

from collections import namedtuple
from typing import Any

import psycopg
from django.db import DEFAULT_DB_ALIAS, connections
from django.db.backends.signals import connection_created
from django.dispatch import receiver
from psycopg.pq import ExecStatus, TransactionStatus
from psycopg.types.numeric import Int8Dumper


@receiver(connection_created)
def _bind_integers_as_one_type(connection: Any, **_: Any) -> None:
    """Every int as int8: psycopg's choice by value makes the server prepare each statement many times."""
    connection.connection.adapters.register_dumper(int, Int8Dumper)


LEFT_OPEN = (TransactionStatus.INTRANS, TransactionStatus.INERROR)


def drop_open_transaction() -> bool:
    """Close this thread's connection if a transaction was left open on it, or it is broken; whether one was open.

    The next statement opens another: a connection wrapper that is thrown away has no state that could be left over.
    """
    wrapper = connections[DEFAULT_DB_ALIAS]
    if wrapper.connection is None:
        return False
    status = wrapper.connection.pgconn.transaction_status
    left_open: bool = wrapper.in_atomic_block or not wrapper.autocommit or status in LEFT_OPEN
    if left_open or status != TransactionStatus.IDLE:
        wrapper.connection.close()
        del connections[DEFAULT_DB_ALIAS]
    return left_open


def left_out(error: BaseException) -> bool:
    """Whether it only says that a row could not be had in time, or that the statement took too long: PostgreSQL is
    well, and what this was about has its turn later.
    """
    return isinstance(error.__cause__, psycopg.errors.LockNotAvailable) or took_too_long(error)


def took_too_long(error: BaseException) -> bool:
    """Whether it says that the statement took too long."""
    return isinstance(error.__cause__, psycopg.errors.QueryCanceled)


class Statement:
    """One SQL statement with named parameters. Raises what Django raises (OperationalError, IntegrityError ..).

    A parameter that holds many rows is one JSON text for json_to_recordset: binding arrays costs several times more.
    """

    def __init__(self, text: str) -> None:
        # Unindented: psycopg remembers how it binds texts of up to 4,096 characters, and works it out each time else.
        self.text = "\n".join(line.strip() for line in text.strip().splitlines())
        self._row: Any = None  # made once: describing the columns of every result costs as much as running it

    def rows(self, **values: Any) -> list[Any]:
        """Run it; its rows as named tuples."""
        found = self.tuples(**values)
        return [self._row._make(values) for values in found] if found else []

    def tuples(self, **values: Any) -> list[tuple[Any, ...]]:
        """Run it; its rows as plain tuples: for pages, where the names are known."""
        wrapper = connections[DEFAULT_DB_ALIAS]
        wrapper.ensure_connection()
        with wrapper.wrap_database_errors, psycopg.Cursor(wrapper.connection) as cursor:
            # Binary: times and ids as text take both sides longer to write and to read.
            cursor.execute(self.text, values, prepare=True, binary=True)
            if cursor.pgresult is None or cursor.pgresult.status != ExecStatus.TUPLES_OK:
                return []
            found = cursor.fetchall()
            if self._row is None:
                self._row = _row_type([column.name for column in cursor.description or ()])
            return found

    def row(self, **values: Any) -> Any | None:
        """Run it; its only row, or None: the guard in its WHERE did not hold."""
        rows = self.rows(**values)
        return rows[0] if rows else None


def _row_type(names: list[str]) -> Any:
    return namedtuple("Row", names)
