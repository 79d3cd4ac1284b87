"""How all of it is doing at one look: what is wrong, rates, latencies, workers, kinds. The admin's first page.

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

from django.utils import timezone

from project.telemetry import health
from queues import kinds, throughput
from queues.admin import alarms, charts
from queues.admin.ages import lasting
from queues.admin.alarms import Light
from queues.operations import at_work, backlog, dead_letters, latency
from queues.operations.at_work import Worker
from queues.operations.backlog import Backlog
from queues.operations.latency import Latency
from queues.operations.selectors import first_id
from queues.states import QueueState, Status

Figure = TypeVar("Figure")

PATIENCE = 0.15  # seconds for the checks of the servers; what they found before is shown after that
FAILED_WITHIN = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class State:
    """How many queues are in a state, and how long a bar that is (percent of the longest)."""

    name: str
    queues: int
    wide: float
    link: str


@dataclass(frozen=True, slots=True)
class Board:
    at: Any
    wrong: list[Light]
    lights: list[Light]
    standing: Backlog
    states: list[State]
    paused_link: str
    oldest: dict[str, str]
    charts: list[charts.Chart]
    latencies: list[Latency]
    workers: list[Worker]
    kinds: list[dict[str, Any]]


class Shared(Generic[Figure]):
    """What a look found, shared by all who ask within so many seconds."""

    def __init__(self, seconds: float, measure: Callable[[], Figure]) -> None:
        self._seconds, self._measure = seconds, measure
        self._lock = threading.Lock()
        self._found: Figure | None = None
        self._until = 0.0

    def __call__(self) -> Figure:
        with self._lock:
            if self._found is None or time.monotonic() >= self._until:
                self._found = self._measure()
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
newest_failures = Shared(5.0, lambda: dead_letters.newest(first_id(timezone.now() - FAILED_WITHIN)))
latencies = Shared(5.0, latency.percentiles)
workers = Shared(1.0, at_work.workers)


def board() -> Board:
    """How it all is, at most a few seconds ago."""
    standing = backlog.recent.latest()
    hour = throughput.read()
    found = _kinds(hour, standing)
    lights = alarms.lights(checks(), standing)
    wrong = [light for light in lights if light.works is False]
    return Board(
        timezone.now(),
        [*wrong, *alarms.late(standing), *alarms.held_back(standing), *alarms.failing(found)],
        lights,
        standing,
        _states(standing),
        alarms.queues_by(paused="yes"),
        {name: lasting(seconds) for name, seconds in standing.ages.items()},
        _charts(hour),
        latencies(),
        workers(),
        found,
    )


def _states(standing: Backlog) -> list[State]:
    """Each state but idle: the queues at rest are not counted."""
    counts = {state: standing.queues(state) for state in QueueState if state != QueueState.IDLE}
    most = max(1, *counts.values())
    return [
        State(state.value, count, round(100 * count / most, 1), alarms.queues_by(state=state.value))
        for state, count in counts.items()
    ]


def _charts(hour: throughput.Throughput | None) -> list[charts.Chart]:
    """Accepted and finished, on one scale; none while Redis is away, which counts them."""
    if hour is None:
        return []
    top = charts.axis(*hour.accepted, *hour.finished)
    return [charts.chart(hour.accepted, "accepted", top), charts.chart(hour.finished, "finished", top)]


def _kinds(hour: throughput.Throughput | None, standing: Backlog) -> list[dict[str, Any]]:
    """Every kind with its limits, those that fail first: how often, of how many, with which error, in the last hour."""
    newest = {row["kind"]: row for row in newest_failures()}
    counted = hour.by_kind if hour else {}
    known = {kind.name: kind for kind in kinds.all_kinds()}
    here = {kind.kind: kind for kind in standing.kinds}
    rows = []
    for name in known.keys() | newest.keys() | counted.keys():
        ended = counted.get(name)
        failed = None if hour is None else ended[Status.FAILED] if ended else 0
        finished = ended.total() if ended else 0
        share = round(100 * failed / finished, 1) if failed and finished else None
        unknown: dict[str, Any] = {"kind": name, "failures": 0, "error": "-", "errors": [], "last": None}
        row = newest.get(name, unknown) | {"failed": failed, "finished": finished, "share": share}
        limits = {"known": known.get(name), "here": here.get(name)}
        rows.append(row | limits | {"link": alarms.requests_by(status="failed", kind=name)})
    return sorted(rows, key=lambda row: (-(row["failed"] or 0), -row["failures"], row["kind"]))
