"""Argon2, a few at a time: one hash takes 100 MB and 0.2 s of a core, and many at once would starve everything else."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from django.contrib.auth.hashers import Argon2PasswordHasher

from project.problems import ServiceUnavailable

AT_ONCE = max(1, (os.cpu_count() or 1) // 2)
WAITING = 16

_running = threading.Semaphore(AT_ONCE)
_admitted = threading.Semaphore(AT_ONCE + WAITING)


class OrderlyArgon2(Argon2PasswordHasher):
    """Raises ServiceUnavailable (503) where so many wait already that the answer would come too late."""

    def encode(self, password: str, salt: str) -> str:
        with turn():
            return super().encode(password, salt)

    def verify(self, password: str, encoded: str) -> bool:
        with turn():
            return super().verify(password, encoded)


@contextmanager
def turn() -> Iterator[None]:
    if not _admitted.acquire(blocking=False):
        raise ServiceUnavailable("Too many logins at once; try again.", retry_after=2)
    try:
        with _running:
            yield
    finally:
        _admitted.release()
