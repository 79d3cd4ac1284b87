"""How many requests were accepted and ran to their end in each minute of the last hour, over all processes.

Redis keeps it. Every process counts for itself and adds what it has counted every two seconds, in a thread of its own:
counting costs a look into a dictionary. While Redis is away it keeps what it has. What Redis loses is lost: only the
board asks.
"""

import atexit
import os
import threading
import time
from collections import Counter
from dataclasses import dataclass
from functools import cached_property

from project.redis import RedisUnavailable, Script
from queues.notify.hints import channel
from queues.states import THROUGHPUT, AttemptOutcome

MINUTES = 60
FLUSH_SECONDS = 2.0
AWAY_SECONDS = 15.0  # Redis did not answer: the others who ask for it come first
ACCEPTED = "accepted"
COUNTED = frozenset({*(status.value for status in THROUGHPUT), AttemptOutcome.REJECTED.value})

ADD = Script("""
    for at = 1, #KEYS do
        redis.call('HINCRBY', KEYS[at], ARGV[2 * at - 1], ARGV[2 * at])
        redis.call('EXPIRE', KEYS[at], 7200)
    end
""")

READ = Script("""
    local found = {}
    for at = 1, #KEYS do found[at] = redis.call('HGETALL', KEYS[at]) end
    return found
""")


@dataclass(frozen=True)
class Throughput:
    """The last hour, minute by minute, the oldest first; the last one is not over yet."""

    minutes: list[dict[str, int]]

    @cached_property
    def accepted(self) -> list[int]:
        return [minute.get(ACCEPTED, 0) for minute in self.minutes]

    @cached_property
    def finished(self) -> list[int]:
        return [sum(minute.values()) - minute.get(ACCEPTED, 0) for minute in self.minutes]

    @cached_property
    def by_kind(self) -> dict[str, Counter[str]]:
        """Of each kind, how many got which final status."""
        kinds: dict[str, Counter[str]] = {}
        for minute in self.minutes:
            for name, count in minute.items():
                status, _, kind = name.partition(":")
                if kind:
                    kinds.setdefault(kind, Counter())[status] += count
        return kinds


def read() -> Throughput | None:
    """The last hour; None while Redis is away."""
    now = int(time.time() // 60)
    try:
        found = READ([_key(minute) for minute in range(now - MINUTES + 1, now + 1)], [])
    except RedisUnavailable:
        return None
    return Throughput([_counts(flat) for flat in found])


def _counts(flat: list[bytes]) -> dict[str, int]:
    return {name.decode(): int(count) for name, count in zip(flat[::2], flat[1::2], strict=True)}


def _key(minute: int) -> str:
    return channel(f"pace:{minute}")


class Tally:
    """What this process has counted and Redis does not know yet."""

    def __init__(self) -> None:
        self.begin_anew()

    def begin_anew(self) -> None:
        """Forget what was counted: a fork's parent adds that itself."""
        self._lock = threading.Lock()
        self._counts: Counter[tuple[int, str]] = Counter()
        self._thread: threading.Thread | None = None

    def accepted(self, count: int) -> None:
        """So many requests were accepted just now."""
        self._add(ACCEPTED, count)

    def finished(self, kind: str, status: str, count: int) -> None:
        """So many of that kind have just got that final status; `rejected` in the place of failed, where it was so.

        What was cancelled or expired is not counted: it did not run.
        """
        if status in COUNTED:
            self._add(f"{status}:{kind}", count)

    def _add(self, name: str, count: int) -> None:
        minute = int(time.time() // 60)
        with self._lock:
            self._counts[minute, name] += count
            if self._thread is None:
                self._thread = threading.Thread(target=self._flush_for_ever, name="throughput", daemon=True)
                self._thread.start()

    def _flush_for_ever(self) -> None:
        pause = FLUSH_SECONDS
        while True:
            time.sleep(pause)
            pause = FLUSH_SECONDS if self.flush() else AWAY_SECONDS

    def flush(self) -> bool:
        """Add what was counted to Redis; whether Redis took it."""
        with self._lock:
            counts, self._counts = self._counts, Counter()
        if not counts:
            return True
        values = [value for (_, name), count in counts.items() for value in (name, count)]
        try:
            ADD([_key(minute) for minute, _ in counts], values)
        except RedisUnavailable:
            oldest = int(time.time() // 60) - MINUTES
            with self._lock:
                self._counts.update({key: count for key, count in counts.items() if key[0] > oldest})
            return False
        return True


tally = Tally()
os.register_at_fork(after_in_child=tally.begin_anew)
atexit.register(tally.flush)
