"""Which part of a process's threads, or of its event loop's places, one kind may hold: a kind that may take long never
takes all of them.
"""

import random
import threading
import time
from collections import Counter

from django.conf import settings

from processing import metrics
from queues.kinds import Kind

SLOW_SECONDS = 10.0  # a kind whose time limit is at most this may have every thread
LONG_SECONDS = 1.0  # a handler that runs for so long holds its thread
SHORTEST_DELAY, LONGEST_DELAY = 0.25, 30.0  # seconds until a queue that found no place asks again
BRISK_SECONDS = 0.05  # where a place of the kind came free so lately, the next one is waited for


class Shares:
    """Counts who runs what, for all threads of a process."""

    def __init__(self) -> None:
        self._free = threading.Condition()
        self._running: Counter[str] = Counter()
        self._left: dict[str, float] = {}  # when, by kind, a place came free
        self._began: dict[int, float] = {}  # when, by thread, the handler did that it is in
        self._put_off = 0  # of late
        self.most = 0  # threads that one kind may hold; 0: all
        self.places = 0  # that there are for all kinds together; 0: threads count themselves

    def set_threads(self, threads: int) -> None:
        """Share out so many threads: KIND_SHARE of them to a kind, at least one."""
        self.most = share_of(threads)

    def set_places(self, places: int) -> None:
        """The same, where nothing else bounds how many run."""
        self.set_threads(places)
        self.places = places

    def enter(self, kind: Kind) -> float | None:
        """Take a place. None: it was free, and `leave` gives it back; else the seconds after which to ask again.

        Handlers that are over soon are waited for, no longer than outcomes are that others shall see.
        """
        most = self._most_of(kind)
        if not most:
            self._began[threading.get_ident()] = time.monotonic()
            return None
        with self._free:
            if self._is_brisk(kind):
                in_time = settings.ENV.record_after_ms / 1000
                if not self._free.wait_for(lambda: self._has_room(kind, most), in_time):
                    self._left.pop(kind.name, None)  # the next one of many queues in a token does not wait, too
            if self._has_room(kind, most):
                self._running[kind.name] += 1
                self._began[threading.get_ident()] = time.monotonic()
                return None
            self._put_off += 1
            delay = min(LONGEST_DELAY, SHORTEST_DELAY + self._put_off / 100)
        metrics.PUT_OFF.labels(kind.name).inc()
        return delay * random.uniform(0.5, 1)  # noqa: S311  (spreads load, guards nothing)

    def leave(self, kind: Kind) -> None:
        """The handler is over. Called by the thread that entered, if that is in it until then."""
        self._began.pop(threading.get_ident(), None)
        if not self._most_of(kind):
            return
        with self._free:
            self._running[kind.name] -= 1
            self._left[kind.name] = time.monotonic()
            self._free.notify_all()
            # Of many places one is free: not all who were put off shall ask for it at once.
            self._put_off -= -(-self._put_off // self.most)

    def crowded(self, threads: int) -> bool:
        """Whether handlers that take long hold as many threads as one kind may have of so many."""
        long_ago = time.monotonic() - LONG_SECONDS
        return sum(began < long_ago for began in tuple(self._began.values())) >= share_of(threads)

    def _has_room(self, kind: Kind, most: int) -> bool:
        return self._running[kind.name] < most and (not self.places or self._running.total() < self.places)

    def _is_brisk(self, kind: Kind) -> bool:
        return time.monotonic() - self._left.get(kind.name, -BRISK_SECONDS) < BRISK_SECONDS

    def _most_of(self, kind: Kind) -> int:
        """How many of this kind may run; 0: nobody counts."""
        return self.most if kind.time_limit > SLOW_SECONDS else self.places


def share_of(threads: int) -> int:
    """How many of them one kind may hold."""
    return max(1, int(threads * settings.ENV.kind_share))
