"""How all of it is doing at one look: servers, processes, queues, pace, failures. The admin's first page.

A look costs a few milliseconds, whatever the number of users and finished requests: all that asks PostgreSQL is kept
for seconds and shared by all who look, and a server that hangs is waited for by a thread of its own.
"""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as TookTooLong
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Generic, TypeVar

from django.conf import settings
from django.utils import timezone

from project.telemetry import health
from queues import throughput
from queues.operations import backlog, dead_letters
from queues.operations.backlog import STUCK_SECONDS, Standing
from queues.operations.selectors import first_id
from queues.states import QueueState, Status

Found = TypeVar("Found")

PATIENCE = 0.15  # seconds for the checks of the servers; what they found before is shown after that
FAILED_WITHIN = timedelta(days=1)
SERVERS = {"postgresql": "PostgreSQL", "rabbitmq": "RabbitMQ", "redis": "Redis", "migrations": "Schema"}
MEANS = {
    "postgresql": "Nothing is accepted, nothing runs.",
    "rabbitmq": "Requests are accepted and kept; none is started.",
    "redis": "Limits, progress and the pace below suffer; requests are accepted and run.",
    "migrations": "The schema is not that of this release: manage.py migrate.",
}


@dataclass(frozen=True, slots=True)
class Light:
    """One thing that works or does not, and then what that means."""

    name: str
    state: str
    works: bool
    means: str = ""


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar of a picture, and what is told of it."""

    x: float
    y: float
    width: float
    height: float
    told: str
    name: str = ""
    value: int = 0


@dataclass(frozen=True, slots=True)
class Picture:
    """What happened in each minute of an hour, as bars in a field of 600 by 100."""

    bars: list[Bar]
    most: int
    last_minute: int


@dataclass(frozen=True, slots=True)
class Board:
    at: Any
    lights: list[Light]
    standing: Standing
    states: list[Bar]
    oldest: dict[str, str]
    accepted: Picture | None
    finished: Picture | None
    failing: list[dict[str, Any]]

    @property
    def wrong(self) -> list[Light]:
        return [light for light in self.lights if not light.works]


class Kept(Generic[Found]):
    """What a look found, shared by all who ask within so many seconds."""

    def __init__(self, seconds: float, look: Callable[[], Found]) -> None:
        self._seconds, self._look = seconds, look
        self._lock = threading.Lock()
        self._found: Found | None = None
        self._until = 0.0

    def __call__(self) -> Found:
        with self._lock:
            if self._found is None or time.monotonic() >= self._until:
                self._found = self._look()
                self._until = time.monotonic() + self._seconds
            return self._found


class Checks:
    """What the health checks found last. They run in a thread, so that a server that hangs holds no page up."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._thread = ThreadPoolExecutor(1, "board-checks")
        self._newest: Future[dict[str, str]] | None = None
        self._found: dict[str, str] = {}

    def __call__(self) -> dict[str, str]:
        with self._lock:
            if self._newest is None or self._newest.done():
                self._newest = self._thread.submit(health.checks)
            newest = self._newest
        with suppress(TookTooLong):
            self._found = newest.result(PATIENCE)
        return self._found


checks = Checks()
newest_failures = Kept(5.0, lambda: dead_letters.newest(first_id(timezone.now() - FAILED_WITHIN)))


def look() -> Board:
    """How it all is, at most a few seconds ago."""
    standing = backlog.recent.look()
    hour = throughput.read()
    return Board(
        timezone.now(),
        _lights(checks(), standing),
        standing,
        _states(standing),
        {name: lasting(seconds) for name, seconds in standing.ages.items()},
        _picture(hour.accepted, "accepted") if hour else None,
        _picture(hour.finished, "finished") if hour else None,
        _failing(hour),
    )


def _lights(found: dict[str, str], standing: Standing) -> list[Light]:
    lights = [
        Light(SERVERS[name], found.get(name, "not known yet"), found.get(name, "ok") == "ok", MEANS[name])
        for name in SERVERS
    ]
    shards = settings.ENV.dispatch_shards
    led = f"{standing.dispatchers} of {shards} {'shard' if shards == 1 else 'shards'} led"
    lights.append(
        Light(
            "Dispatchers",
            led,
            standing.dispatchers >= shards,
            "Accepted requests get to no worker: manage.py dispatch.",
        )
    )
    workers = f"{standing.workers} {'process' if standing.workers == 1 else 'processes'}"
    lights.append(Light("Workers", workers, standing.workers > 0, "Nothing runs: manage.py work."))
    stuck = standing.stuck_for
    lights.append(
        Light(
            "Queues",
            f"work waits for {lasting(stuck)}" if stuck >= STUCK_SECONDS else "moving",
            stuck < STUCK_SECONDS,
            "Requests could begin, and none runs: are dispatchers and workers alive, do handlers hang?",
        )
    )
    blocked = standing.queues(QueueState.BLOCKED)
    lights.append(
        Light(
            "Blocked",
            f"{blocked} {'queue' if blocked == 1 else 'queues'}" if blocked else "none",
            not blocked,
            "The head failed for good, and nothing behind it runs: retry, cancel or skip it.",
        )
    )
    return lights


def _states(standing: Standing) -> list[Bar]:
    """A bar for each state but idle: the queues at rest are not counted."""
    counts = {str(state.value): standing.queues(state) for state in QueueState if state != QueueState.IDLE}
    most = max(1, *counts.values())
    return [
        Bar(90, 22 * row, round(400 * count / most, 1), 16, f"{count} {name}", name, count)
        for row, (name, count) in enumerate(counts.items())
    ]


def lasting(seconds: float) -> str:
    """A time as people say it: 0.4 s, 12 s, 3 min, 2 h, 5 days; none for 0."""
    if not seconds:
        return "none"
    if seconds < 10:
        return f"{seconds:.1f} s"
    for length, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def _picture(minutes: list[int], what: str) -> Picture:
    most = max(1, *minutes)
    wide = 600 / len(minutes)
    bars = []
    for number, count in enumerate(minutes):
        high = round(100 * count / most, 1)
        ago = len(minutes) - 1 - number
        told = f"{count} {what}, {f'{ago} min ago' if ago else 'this minute so far'}"
        bars.append(Bar(round(number * wide, 1), 100 - high, round(wide - 1.5, 1), high, told))
    return Picture(bars, max(minutes), minutes[-2])


def _failing(hour: throughput.Pace | None) -> list[dict[str, Any]]:
    """Each kind that failed: how often and of how many in the last hour (None: not known), and its commonest error."""
    newest = {row["kind"]: row for row in newest_failures()}
    counted = hour.by_kind if hour else {}
    kinds = set(newest) | {kind for kind, ended in counted.items() if ended[Status.FAILED]}
    rows = []
    for kind in kinds:
        ended = counted.get(kind)
        failed = None if hour is None else ended[Status.FAILED] if ended else 0
        finished = ended.total() if ended else 0
        share = round(100 * failed / finished, 1) if failed and finished else None
        unknown = {"kind": kind, "failures": 0, "error": "-", "last": None}
        rows.append(newest.get(kind, unknown) | {"failed": failed, "finished": finished, "share": share})
    return sorted(rows, key=lambda row: (-(row["failed"] or 0), -row["failures"], row["kind"]))
