"""Argon2 in processes of its own: a hash takes 100 MB and 0.35 s of a core, and many would starve everything else.

A request that wants one waits for it in a short queue of HASHING_REQUESTS. Each holds a thread of the API meanwhile, so
the queue is shorter than API_THREADS: the others stay free. Who finds it full is told 503 at once. The hashes are
made in processes of a lower priority, and never on all cores of the machine, so that who submits does not notice them.
"""

import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from fcntl import LOCK_EX, LOCK_NB, flock
from pathlib import Path
from random import SystemRandom
from typing import Any, TextIO

import structlog
from django.conf import settings
from django.contrib.auth.hashers import Argon2PasswordHasher

from accounts.hashing_process import HashingProcess
from project.rest.problems import ServiceUnavailable
from project.telemetry.multiprocess import VARIABLE

AT_ONCE = max(1, (os.cpu_count() or 1) // 2)
TURN_SECONDS, LOOK_SECONDS = 3.0, 0.02  # how long a hash waits for those of other processes, and how often it looks
RETRY_SECONDS = 1, 3  # at random, so that who was refused together does not come back together

log = structlog.get_logger()

_random = SystemRandom()


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
        self.places = threading.Semaphore(places)
        self.threads = ThreadPoolExecutor(min(AT_ONCE, places), "hashing")
        self._local = threading.local()

    def ask(self, *question: Any) -> Any:
        """What a hashing process answers, when it is this one's turn. Raises ServiceUnavailable."""
        if not self.places.acquire(blocking=False):
            raise ServiceUnavailable("Too many logins at once; try again.", retry_after=_random.randint(*RETRY_SECONDS))
        try:
            return self.threads.submit(self._ask, question).result()
        except OSError as error:  # no memory, or too many processes
            log.error("no hash could be made", error=str(error))
            raise ServiceUnavailable("No password can be checked now.", retry_after=RETRY_SECONDS[1]) from error
        finally:
            self.places.release()

    def _ask(self, question: Any) -> Any:
        if not hasattr(self._local, "process"):
            self._local.process = HashingProcess()
        with turn():
            return self._local.process.ask(*question)


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


def places() -> int:
    """How many requests may wait or be served: never all threads of the API."""
    return max(1, min(settings.ENV.hashing_requests, settings.ENV.api_threads - 1))


def _begin_anew() -> None:
    """A fork has none of its parent's threads."""
    global _queue
    _queue = HashingQueue(places())


_queue = HashingQueue(places())
os.register_at_fork(after_in_child=_begin_anew)
