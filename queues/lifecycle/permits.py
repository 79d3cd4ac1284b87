"""Permits of kinds that are limited or paused: taken before a handler begins, given on in the order of who came first.

PostgreSQL decides all of it: with Redis or RabbitMQ gone nothing here changes.
"""

import random
import time

import structlog
from django.db import InterfaceError, OperationalError, connection

from queues.exceptions import FencedOut
from queues.limits.models import HELD_UNTIL
from queues.sql.permits import (
    CALL,
    DROP,
    DROP_GONE,
    DROP_OVER,
    DROP_STARTS,
    LET_GO,
    PASS_PAUSED,
    TAKE,
    WAITED_FOR,
    WAKE_CALLED,
    WAKE_FORGOTTEN,
)
from queues.sql.statement import left_out

log = structlog.get_logger()

HELD_SECONDS = 1000 * 366 * 86400.0  # how long a queue waits whose head is held back: until it is called
TRIES, AGAIN_SECONDS = 50, 0.002
BUSY_SECONDS = 0.1  # where others decide all the time: asks again after so long
CALLED_AT_ONCE = 200
DROPPED_AT_ONCE = 1000
DROP_SECONDS = 0.25
REPAIR_SECONDS = 60.0


def take(queue_id: int, fence: int, seq: int, kind: str) -> float | None:
    """Ask for a permit for what runs next in a leased queue. None: it may begin, and is counted from now on.

    Else for how many seconds its queue waits; HELD_SECONDS: until it is called. It keeps its place in its kind's line.
    Raises FencedOut.
    """
    for _ in range(TRIES):
        try:
            row = TAKE.row(queue=queue_id, fence=fence, seq=seq, kind=kind)
        except (OperationalError, InterfaceError) as error:
            if not left_out(error):
                # Its queue waits, which is recorded with what is over: once PostgreSQL is there. A permit ends with it.
                log.warning("a permit could not be asked for", queue=queue_id, error=str(error).strip())
                connection.close()
            return BUSY_SECONDS
        assert row is not None  # noqa: S101  (it has no FROM)
        if not row.leased:
            raise FencedOut
        if row.decided:
            return None if row.refused is None else HELD_SECONDS
        if row.cancelled:
            return 0.0  # the next lease ends it
        if not row.known:
            return None
        time.sleep(AGAIN_SECONDS * random.uniform(0.5, 1.5))  # noqa: S311  (spreads load, guards nothing)
    return BUSY_SECONDS


def drop(queue_id: int, done_seq: int) -> None:
    """Its head was given up, and all up to `done_seq`: it waits for nobody's permit any more."""
    DROP.rows(queue=queue_id, done=done_seq)


def let_go(queue_id: int, seq: int) -> None:
    """This request is to be cancelled; it may be that its queue is being set aside just now."""
    LET_GO.rows(queue=queue_id, seq=seq)


class Calls:
    """Calls who waits for a permit, once there are any. Several at once cost a look, never a permit."""

    def __init__(self) -> None:
        self.waited_for = False  # by somebody, at the last look
        self._dropped = self._repaired = 0.0

    def call(self) -> bool:
        """Wake those whose turn it is. Whether there are more of them. Waits for nobody's row."""
        more = False
        kinds = [row.kind for row in WAITED_FOR.rows()]
        self.waited_for = bool(kinds)
        for kind in kinds:
            row = CALL.row(kind=kind, queue=0, count=CALLED_AT_ONCE, held=HELD_UNTIL)
            if row is not None and row.called < min(row.free, row.looked):
                more = bool(DROP_GONE.rows(kind=kind, count=DROPPED_AT_ONCE)) or more
            if row is not None and row.passed:
                PASS_PAUSED.rows(kind=kind, count=DROPPED_AT_ONCE, held=HELD_UNTIL)
            more = more or (row is not None and (row.passed > 0 or row.called == CALLED_AT_ONCE))
        self._clean()
        return more

    def _clean(self) -> None:
        now = time.monotonic()
        if now - self._dropped >= DROP_SECONDS:
            self._dropped = now
            WAKE_CALLED.rows(held=HELD_UNTIL)
            DROP_OVER.rows(count=DROPPED_AT_ONCE)
        if now - self._repaired >= REPAIR_SECONDS:
            self._repaired = now
            DROP_STARTS.rows()
            WAKE_FORGOTTEN.rows(held=HELD_UNTIL, count=DROPPED_AT_ONCE)
