"""Which part of a process's threads one kind may hold: a kind that may take long never takes all of them."""

import random
import threading
from collections import Counter

from django.conf import settings

from processing import metrics
from queues.kinds import Kind

SLOW_SECONDS = 10.0  # a kind whose time limit is at most this may have every thread
SHORTEST_DELAY, LONGEST_DELAY = 0.25, 30.0  # seconds until a queue that found no place asks again


class Shares:
    """Counts who runs what, for all threads of a process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: Counter[str] = Counter()
        self._put_off = 0  # since a place was free
        self.most = 0  # threads that one kind may hold; 0: all

    def set_threads(self, threads: int) -> None:
        """Share out so many threads: KIND_SHARE of them to a kind, at least one."""
        self.most = max(1, int(threads * settings.ENV.kind_share))

    def enter(self, kind: Kind) -> float | None:
        """Take a place. None: it was free, and `leave` gives it back; else the seconds after which to ask again."""
        if kind.time_limit <= SLOW_SECONDS or not self.most:
            return None
        with self._lock:
            if self._running[kind.name] < self.most:
                self._running[kind.name] += 1
                return None
            self._put_off += 1
            delay = min(LONGEST_DELAY, SHORTEST_DELAY + self._put_off / 100)
        metrics.PUT_OFF.labels(kind.name).inc()
        return delay * random.uniform(0.5, 1)  # noqa: S311  (spreads load, guards nothing)

    def leave(self, kind: Kind) -> None:
        """The handler is over."""
        if kind.time_limit <= SLOW_SECONDS or not self.most:
            return
        with self._lock:
            self._running[kind.name] -= 1
            self._put_off = 0
