"""One thread that looks after all turns of a worker process: it renews leases, records what a slow handler keeps
waiting, enforces time limits, and holds the lock whose loss tells the others that this process is dead.
"""

import ctypes
import random
import threading
import time
from contextlib import suppress
from typing import Protocol

import structlog
from django.db import Error as DatabaseError
from django.db import InterfaceError, OperationalError, connection

from processing import broker
from processing.beat import Beat
from queues import outbox
from queues.lease import FencedOut

log = structlog.get_logger()

LOCK_CLASS = 0x6F776B72  # "owkr": workers' advisory locks
TICK_SECONDS = 0.01
RENEW_SECONDS = 1.0
LOCK_SECONDS = 0.25  # sooner than a dispatcher believes that a process is dead whose lock it missed once


class Watched(Protocol):
    """What goes on in another thread: a turn, the rest of a bundle of turns, a process of one request."""

    def look_after(self) -> None:
        """Called every few milliseconds. Raises FencedOut: there is nothing to look after any more."""

    def abandon(self) -> None:
        """The process ends now."""


class Watch:
    """The process's watchman. `holder` names the process in the queues it leases: the key of its advisory lock."""

    def __init__(self) -> None:
        self.holder = random.SystemRandom().randrange(1, 2**31)
        self.stopping = threading.Event()
        self._locked = threading.Event()
        self._turns: set[Watched] = set()
        self._busy = threading.Event()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._end_process = threading.Event()
        self._beat: Beat | None = None

    def start(self, end_process: threading.Event, beat: Beat | None = None) -> None:
        """Begin to watch, and give the process's sign of life.

        `end_process` is set when a handler hangs so that only the process's end helps.
        """
        self._end_process, self._beat = end_process, beat
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._thread.start()

    def wait_until_known(self, timeout: float) -> bool:
        """Wait until the database knows that this process lives; without that its leases would be taken away."""
        return self._locked.wait(timeout)

    @property
    def takes_turns(self) -> bool:
        """Whether the process goes on, and the database knows that it lives."""
        return self._locked.is_set() and not self.stopping.is_set()

    def add(self, turn: Watched) -> None:
        """Look after this from now on."""
        self._turns.add(turn)
        self._busy.set()

    def remove(self, turn: Watched) -> None:
        """It is over."""
        self._turns.discard(turn)

    def retire(self, turn: Watched) -> None:
        """A turn was given up with its thread: end the process, once the other handlers have ended."""
        self.remove(turn)
        self._end_process.set()

    def stop(self, grace: float) -> bool:
        """Let running handlers finish for `grace` seconds, then give their queues back. Whether all had finished."""
        self.stopping.set()
        deadline = time.monotonic() + grace
        while self._turns and time.monotonic() < deadline:
            time.sleep(TICK_SECONDS)
        unfinished = tuple(self._turns)
        for turn in unfinished:
            with suppress(DatabaseError):
                turn.abandon()
        self._ended.set()
        self._busy.set()
        if self._thread:
            self._thread.join(timeout=5)
        return not unfinished

    def _run(self) -> None:
        """Watch until the end. A process without its watch would have every lease taken away: it ends too."""
        try:
            self._watch()
        except BaseException:
            log.exception("the watch has a defect; the process ends")
            self._end_process.set()
        finally:
            connection.close()

    def _watch(self) -> None:
        checked = 0.0
        while not self._ended.is_set():
            self._busy.wait(LOCK_SECONDS)
            if self._beat is not None:
                self._beat.give(self._locked.is_set())
            try:
                if time.monotonic() - checked > LOCK_SECONDS:
                    self._hold_lock()
                    checked = time.monotonic()
                self._look()
            except DatabaseError as error:
                self._locked.clear()
                log.warning("the watch lost PostgreSQL", error=str(error).strip())
                connection.close()
                checked = 0.0
                self._ended.wait(0.1)
            self._busy.clear()
            if self._turns:  # looked at after the clearing: `add` may come in between
                self._busy.set()
            self._ended.wait(TICK_SECONDS)

    def _hold_lock(self) -> None:
        """Hold the lock, or take it (again): it goes with its connection."""
        with connection.cursor() as cursor:
            if self._locked.is_set():
                broker.learn(outbox.token_generation())
                return
            cursor.execute("SELECT pg_try_advisory_lock(%s, %s)", [LOCK_CLASS, self.holder])
            (taken,) = cursor.fetchone()
        if taken:
            self._locked.set()

    def _look(self) -> None:
        for turn in tuple(self._turns):
            try:
                turn.look_after()
            except FencedOut:
                log.warning("the watch was fenced out", of=str(turn))
                self.remove(turn)
            except (OperationalError, InterfaceError):
                raise
            except Exception:
                # Its lease runs out, and the others' turns go on.
                log.exception("a turn cannot be looked after", of=str(turn))
                self.remove(turn)


def raise_in(thread_id: int, error: type[BaseException]) -> None:
    """Have `error` raised in a thread at its next Python instruction.

    Source: the C API's PyThreadState_SetAsyncExc. A system call is not interrupted.
    """
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread_id), ctypes.py_object(error))
