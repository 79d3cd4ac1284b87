"""What cannot be had now is left out, and tried again later, alone and ever more seldom."""

import time
from collections.abc import Callable, Hashable
from itertools import islice
from typing import Generic, TypeVar

import structlog
from django.db import DatabaseError

from queues.sql.statement import left_out

Key = TypeVar("Key", bound=Hashable)
Found = TypeVar("Found")

log = structlog.get_logger()


class SetAside(Generic[Key]):
    """Keys that failed, each until its next try: `first` seconds after its first failure, at most `longest` later."""

    def __init__(self, first: float = 0.1, longest: float = 30.0, most: int = 100_000) -> None:
        self.first, self.longest, self.most = first, longest, most
        self._until: dict[Key, tuple[float, int]] = {}  # when it is tried again, and how often it failed

    def add(self, key: Key) -> None:
        """It failed, maybe once more. Of more than `most` keys the one that failed longest ago is forgotten."""
        failures = self._until.pop(key, (0.0, 0))[1] + 1
        self._until[key] = time.monotonic() + min(self.longest, self.first * 2 ** min(failures - 1, 20)), failures
        if len(self._until) > self.most:
            del self._until[next(iter(self._until))]

    def holds(self, key: Key) -> bool:
        """Whether it is too early for another try."""
        return bool(self._until) and key in self._until and time.monotonic() < self._until[key][0]

    def forget(self, key: Key) -> None:
        """It went well."""
        if self._until:
            self._until.pop(key, None)

    def due(self, count: int) -> list[Key]:
        """At most `count` keys whose time for another try has come."""
        now = time.monotonic()
        return list(islice((key for key, (until, _) in self._until.items() if until <= now), count))

    def try_all(self) -> None:
        """The time has come for another try of each."""
        now = time.monotonic()
        self._until = {key: (min(until, now), failures) for key, (until, failures) in self._until.items()}

    def forget_old(self) -> None:
        """What nobody tried again for long after its time is no trouble any more."""
        now = time.monotonic()
        for key in [key for key, (until, _) in self._until.items() if until + self.longest < now]:
            del self._until[key]

    def __contains__(self, key: object) -> bool:
        return key in self._until

    def __len__(self) -> int:
        return len(self._until)


class Parts:
    """The parts of a round, by name. One that had to wait for somebody's lock is left out; the others go on."""

    def __init__(self) -> None:
        self._left_out: SetAside[str] = SetAside(first=0.25, longest=5.0)

    def do(self, name: str, part: Callable[[], Found], otherwise: Callable[[], Found]) -> Found:
        """What comes of it; `otherwise()` where it is left out. Raises what else it raises."""
        if self._left_out.holds(name):
            return otherwise()
        try:
            found = part()
        except DatabaseError as error:
            if not left_out(error):
                raise
            self._left_out.add(name)
            log.warning("left out what is locked or too slow", part=name, error=str(error).strip())
            return otherwise()
        self._left_out.forget(name)
        return found
