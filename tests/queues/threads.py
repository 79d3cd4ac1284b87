"""Doing things at once, each thread with a connection of its own."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.db import connection


def wait_for_a_lock() -> None:
    """Until some statement of this database waits for another."""
    until = time.monotonic() + 30
    with connection.cursor() as cursor:
        while time.monotonic() < until:
            cursor.execute("SELECT pg_stat_clear_snapshot()")  # a transaction would see the same answer for ever
            cursor.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )
            if cursor.fetchone()[0]:
                return
    raise AssertionError("nobody waits for a lock")


NOTHING_IS_ACCEPTED = "LOCK TABLE queues_request IN SHARE ROW EXCLUSIVE MODE"


@contextmanager
def holding(lock: str, *values: Any) -> Iterator[None]:
    """A statement's locks are held by this thread's connection inside the block, and nothing else is done there."""
    with connection.cursor() as cursor:
        cursor.execute("BEGIN")
        try:
            cursor.execute(lock, values)
            yield
        finally:
            cursor.execute("ROLLBACK")


def in_thread(do: Any) -> Any:
    """Do it in a thread; gives a function that waits for what comes of it."""
    result: list[Any] = []

    def run() -> None:
        try:
            result.append(do())
        finally:
            connection.close()

    thread = threading.Thread(target=run)
    thread.start()

    def join() -> Any:
        thread.join(30)
        return result[0]

    return join


def at_once(count: int, do: Any) -> list[Any]:
    """Do it in so many threads that all begin together."""
    barrier = threading.Barrier(count)

    def begin(number: int) -> Any:
        barrier.wait(30)
        return do(number)

    running = [in_thread(lambda number=number: begin(number)) for number in range(count)]
    return [join() for join in running]


class Places(threading.Semaphore):
    """Counts who waits at the same time."""

    def __init__(self, count: int) -> None:
        super().__init__(count)
        self.taken: list[threading.Thread] = []
        self.most = 0

    def acquire(self, blocking: bool = True, timeout: float | None = None) -> bool:
        got = super().acquire(blocking, timeout)
        if got:
            self.taken.append(threading.current_thread())
            self.most = max(self.most, len(self.taken))
        return got

    def release(self, n: int = 1) -> None:
        self.taken.remove(threading.current_thread())
        super().release(n)
