"""A time limit for what runs in this thread, without a worker's watch."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from processing.handlers import TimeLimitExceeded
from processing.interrupt import interrupt, let_it_arrive


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raises TimeLimitExceeded in the block once it has run for so long; a system call is not interrupted."""
    thread = threading.get_ident()
    lock = threading.Lock()
    over = late = False

    def end() -> None:
        nonlocal late
        with lock:
            if not over:
                late = True
                interrupt(thread)

    timer = threading.Timer(min(seconds, threading.TIMEOUT_MAX), end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        with suppress(TimeLimitExceeded):
            with lock:
                over = True
            if late:
                let_it_arrive()
