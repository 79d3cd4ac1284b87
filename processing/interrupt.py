"""An exception that one thread has another raise: how a time limit ends a handler that runs in a thread."""

from contextlib import suppress

from dramatiq.threading import raise_thread_exception

from processing.handlers import TimeLimitExceeded


def interrupt(thread_id: int) -> None:
    """That thread raises TimeLimitExceeded at its next Python instruction. A system call is not interrupted."""
    raise_thread_exception(thread_id, TimeLimitExceeded)  # type: ignore[no-untyped-call]  # Dramatiq's has none


def let_it_arrive() -> None:
    """In the thread that was interrupted: an exception that is still on its way arrives here, and harms nobody.

    Not taken back: CPython 3.11 would go on looking for it, for ever where a tracer is on.
    """
    with suppress(TimeLimitExceeded):
        for _ in range(10):  # it arrives at the latest when a loop begins again
            continue
