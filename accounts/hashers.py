"""Argon2 in processes of its own: a hash takes 100 MB and 0.35 s of a core, and many would starve everything else.

A request that wants one waits for it in a short queue of HASHING_REQUESTS. Each holds a thread of the API meanwhile, so
the queue is shorter than API_THREADS: the others stay free. Who finds it full is told 503, mostly before anything else
is done for them, and to come back, one after another, as hashes are made. These are made in processes of a lower
priority, and never on all cores of the machine, so that who submits does not notice them.
"""

import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from fcntl import LOCK_EX, LOCK_NB, flock
from math import ceil
from pathlib import Path
from typing import Any, TextIO

import structlog
from django.conf import settings
from django.contrib.auth.hashers import Argon2PasswordHasher

from accounts.hashing_process import HashingProcess
from project.rest.problems import ServiceUnavailable
from project.telemetry.multiprocess import VARIABLE

AT_ONCE = max(1, (os.cpu_count() or 1) // 2)
TURN_SECONDS, LOOK_SECONDS = 3.0, 0.02  # how long a hash waits for those of other processes, and how often it looks
USUAL_SECONDS = 0.35  # what a hash takes of a core, until one has been made here
LONGEST_RETRY_SECONDS = 10.0  # nobody is told to come back later than that: of more, several at the same moment

log = structlog.get_logger()


class OrderlyArgon2(Argon2PasswordHasher):
    """Raises ServiceUnavailable (503) at once where the queue is full.

    One lane instead of Django's eight: the same work, but never on several cores at once, where others would wait.
    """

    parallelism = 1

    def encode(self, password: str, salt: str) -> str:
        costs = self.params()
        return "argon2" + str(
            _queue.ask("encode", password, salt, costs.time_cost, costs.memory_cost, costs.parallelism, costs.hash_len)
        )

    def verify(self, password: str, encoded: str) -> bool:
        return bool(_queue.ask("verify", password, encoded.removeprefix("argon2")))


class HashingQueue:
    """Who waits for a hash in this process, and the threads that each have one made in a process of their own."""

    def __init__(self, places: int) -> None:
        self.places, self._at_once = places, min(AT_ONCE, places)
        self.threads = ThreadPoolExecutor(self._at_once, "hashing")
        self._local = threading.local()
        self._lock = threading.Lock()
        self._waiting = 0
        self._pace = USUAL_SECONDS / self._at_once  # seconds from one hash to the next
        self._expected = 0.0  # when the last who was refused was told to come back, on the monotonic clock

    def ask(self, *question: Any) -> Any:
        """What a hashing process answers, when it is this one's turn. Raises ServiceUnavailable."""
        with self._lock:
            self._must_have_room()
            self._waiting += 1
        try:
            return self.threads.submit(self._ask, question).result()
        except OSError as error:  # no memory, or too many processes
            log.error("no hash could be made", error=str(error))
            raise ServiceUnavailable("No password can be checked now.", retry_after=3) from error
        finally:
            with self._lock:
                self._waiting -= 1

    def refuse_if_full(self) -> None:
        """Raises ServiceUnavailable where `ask` would, before anything is done for who asks."""
        with self._lock:
            self._must_have_room()

    def _must_have_room(self) -> None:
        """One after another is told to come back, as far apart as hashes are made: together they would be refused
        again, and answering them costs others more than the hashes do.
        """
        if self._waiting < self.places:
            return
        now = time.monotonic()
        self._expected = max(now, self._expected) + self._pace
        if self._expected > now + LONGEST_RETRY_SECONDS:
            self._expected = now + min(self._pace, LONGEST_RETRY_SECONDS)
        raise ServiceUnavailable("Too many logins at once; try again.", retry_after=ceil(self._expected - now))

    def _ask(self, question: Any) -> Any:
        if not hasattr(self._local, "process"):
            self._local.process = HashingProcess()
        began = time.monotonic()
        with turn():
            answer = self._local.process.ask(*question)
        self._pace = (time.monotonic() - began) / self._at_once  # of those that were made: what fails may fail at once
        return answer


@contextmanager
def turn() -> Iterator[None]:
    """One of the AT_ONCE that all API processes share which a server started, or, after a while, one more: a sibling
    that is stuck keeps nobody from logging in.
    """
    shared = os.environ.get(VARIABLE)
    with ExitStack() as stack:
        names = [f"hashing-{n}.lock" for n in range(AT_ONCE)] if shared else []
        files = [stack.enter_context((Path(shared or "") / name).open("w")) for name in names]
        patience = time.monotonic() + TURN_SECONDS
        while files and not any(map(_taken, files)) and time.monotonic() < patience:
            time.sleep(LOOK_SECONDS)
        yield


def _taken(file: TextIO) -> bool:
    try:
        flock(file, LOCK_EX | LOCK_NB)
    except BlockingIOError:
        return False
    return True


def refuse_if_full() -> None:
    """Raises ServiceUnavailable where no password can be looked at now."""
    _queue.refuse_if_full()


def places() -> int:
    """How many requests may wait or be served: never all threads of the API."""
    return max(1, min(settings.ENV.hashing_requests, settings.ENV.api_threads - 1))


def _begin_anew() -> None:
    """A fork has none of its parent's threads."""
    global _queue
    _queue = HashingQueue(places())


_queue = HashingQueue(places())
os.register_at_fork(after_in_child=_begin_anew)
