"""How long a transaction waits for locks, and locks that stand for no row."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from django.conf import settings
from django.db import transaction

from project.postgresql import limits
from queues.sql.statement import Statement

BRIEFLY_SECONDS = 0.25

# The caller's own limit, and ours in its place until the transaction ends or has its own again.
LOCK_TIMEOUT = Statement("""
    SELECT current_setting('lock_timeout') AS before, set_config('lock_timeout', %(limit)s, true)
""")

# A lock that the session holds until it gives it back or ends: who dies with it blocks nobody.
TRY_LOCK = Statement("SELECT pg_try_advisory_lock(%(lock_class)s::int, hashtext(%(key)s)) AS locked")
UNLOCK = Statement("SELECT pg_advisory_unlock(%(lock_class)s::int, hashtext(%(key)s))")

# The same under a number: what a worker process lives by.
TRY_LOCK_NUMBER = Statement("SELECT pg_try_advisory_lock(%(lock_class)s::int, %(number)s::int) AS locked")

# Until the transaction ends nobody claims anything: every claim reads which kinds are limited.
LOCK_LIMITS = Statement("LOCK TABLE queues_kindlimit IN ACCESS EXCLUSIVE MODE")


_patient = threading.Semaphore(max(1, settings.ENV.api_threads // 2))


@contextmanager
def patient() -> Iterator[bool]:
    """Whether a thread may wait for a row here for as long as its process does: half of the API's threads may at once.

    The others wait BRIEFLY_SECONDS. So whoever has one user's row for long takes no more than half of the threads.
    """
    if limits.role() != "api":
        yield True
        return
    long = _patient.acquire(blocking=False)
    try:
        yield long
    finally:
        if long:
            _patient.release()


def wait_at_most(seconds: float) -> str:
    """Until this transaction ends its statements wait for each lock for so long, then raise what `left_out` tells.

    Returns the limit that it had before, for `restore_lock_timeout`.
    """
    row = LOCK_TIMEOUT.row(limit=f"{max(1, round(seconds * 1000))}ms")
    assert row is not None  # noqa: S101  (it has no WHERE)
    return str(row.before)


def restore_lock_timeout(before: str) -> None:
    """Give the transaction the limit that it had."""
    LOCK_TIMEOUT.row(limit=before)


@contextmanager
def with_patience() -> Iterator[None]:
    """The same for whatever the block waits for, in a transaction or not. Raises what `left_out` tells."""
    with patient() as long:
        if long:
            yield
            return
        with transaction.atomic():
            wait_at_most(BRIEFLY_SECONDS)
            yield
