"""A time limit for what runs in this thread, without a worker's watch."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from dramatiq.threading import raise_thread_exception

from processing.handlers import TimeLimitExceeded


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raises TimeLimitExceeded in the block once it has run for so long; a system call is not interrupted."""
    thread = threading.get_ident()
    lock = threading.Lock()
    over = late = False

    def interrupt() -> None:
        nonlocal late
        with lock:
            if not over:
                late = True
                raise_thread_exception(thread, TimeLimitExceeded)  # type: ignore[no-untyped-call]

    timer = threading.Timer(min(seconds, threading.TIMEOUT_MAX), interrupt)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        with suppress(TimeLimitExceeded):
            with lock:
                over = True
            for _ in range(10 if late else 0):  # one that is under way arrives here, and harms nobody
                continue
