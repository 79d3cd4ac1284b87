"""Argon2 in a few threads of its own: a hash takes 100 MB and 0.35 s of a core, and many would starve everything else.

A request that wants one waits for it in a short line of HASHING_REQUESTS. Each holds a thread of the API meanwhile, so
the line is shorter than API_THREADS: the others stay free. Who finds the line full is told 503 at once. The hashing
threads run at a lower priority than all others, so that who submits does not notice them.
"""

import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from random import SystemRandom
from typing import Any, TypeVar

from django.conf import settings
from django.contrib.auth.hashers import Argon2PasswordHasher

from project.rest.problems import ServiceUnavailable

AT_ONCE = max(1, (os.cpu_count() or 1) // 2)
NICE = 10
RETRY_SECONDS = 1, 3  # at random, so that who was refused together does not come back together

Hashed = TypeVar("Hashed")

_random = SystemRandom()


class OrderlyArgon2(Argon2PasswordHasher):
    """Raises ServiceUnavailable (503) at once where the line is full.

    One lane instead of Django's eight: the same work, but never on several cores at once, where others would wait.
    """

    parallelism = 1

    def encode(self, password: str, salt: str) -> str:
        return _line.run(super().encode, password, salt)

    def verify(self, password: str, encoded: str) -> bool:
        return _line.run(super().verify, password, encoded)


class Line:
    """Who waits for a hash in this process, and the threads that make them."""

    def __init__(self, places: int) -> None:
        self.places = threading.Semaphore(places)
        self.threads = ThreadPoolExecutor(AT_ONCE, "hashing", initializer=step_back)

    def run(self, hash_it: Callable[..., Hashed], *arguments: Any) -> Hashed:
        """What `hash_it` gives, when it is this one's turn. Raises ServiceUnavailable."""
        if not self.places.acquire(blocking=False):
            raise ServiceUnavailable("Too many logins at once; try again.", retry_after=_random.randint(*RETRY_SECONDS))
        try:
            return self.threads.submit(hash_it, *arguments).result()
        finally:
            self.places.release()


def step_back() -> None:
    """Lower the priority of this thread and of those that Argon2 starts; where threads have none, nothing happens."""
    if sys.platform == "linux":
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)


def places() -> int:
    """How many requests may wait or be served: never all threads of the API."""
    return max(1, min(settings.ENV.hashing_requests, settings.ENV.api_threads - 1))


def _begin_anew() -> None:
    """A fork has none of its parent's threads."""
    global _line
    _line = Line(places())


_line = Line(places())
os.register_at_fork(after_in_child=_begin_anew)
