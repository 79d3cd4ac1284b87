"""GET /metrics: what this service's processes counted, and how the whole installation stands."""

import os
import time
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import structlog
from django.db import Error as DatabaseError
from django.db import connection
from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_safe
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    REGISTRY,
    CollectorRegistry,
    Counter,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector

from project.telemetry import health
from project.telemetry.multiprocess import VARIABLE, settled

log = structlog.get_logger()

disable_created_metrics()  # when a series began is of no use to Prometheus, and one more series each

BACKENDS = ("postgresql", "rabbitmq", "redis", "migrations", "dispatcher")
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
NOWHERE = "(none)"  # for all paths that nothing is served under

ANSWERED = Counter("ordered_work_http_requests", "Answers, by route and status.", ["route", "method", "status"])
ANSWER_SECONDS = Histogram(
    "ordered_work_http_request_seconds",
    "From a request's arrival in Django to its answer; ?wait= and streams included.",
    ["route", "method"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)


_figures: list[Callable[[], Iterable[Metric]]] = []
_before: list[Callable[[], None]] = []


def register(figures: Callable[[], Iterable[Metric]], before: Callable[[], None] | None = None) -> None:
    """An app's figures of the whole installation, from its `ready()`; `before` runs first in each process's scrape.

    Both may use Django's connection. Without PostgreSQL the figures are left out, whatever they are of.
    """
    _figures.append(figures)
    if before is not None:
        _before.append(before)


def count_answer(route: str, method: str | None, status: int, arrived: float) -> None:
    """One more answer to a request that arrived at `arrived` (perf_counter)."""
    known = method if method and method in METHODS else "other"
    answered, seconds = _series(route, known, status)
    answered.inc()
    seconds.observe(time.perf_counter() - arrived)


@cache
def _series(route: str, method: str, status: int) -> tuple[Any, Any]:
    return ANSWERED.labels(route, method, str(status)), ANSWER_SECONDS.labels(route, method)


@require_safe
def metrics(request: HttpRequest) -> HttpResponse:
    return HttpResponse(exposition([Installation()]), CONTENT_TYPE_LATEST, headers={"Cache-Control": "no-store"})


def exposition(collectors: Iterable[Any] = ()) -> bytes:
    """All that the processes of this service counted, and what the given collectors collect, as Prometheus reads it."""
    for begin in _before:
        begin()
    shared = os.environ.get(VARIABLE)
    return render([*collectors, REGISTRY if shared is None else Counted(Path(shared))])


def render(collectors: Iterable[Any]) -> bytes:
    """What the given collectors collect, as Prometheus reads it."""
    registry = CollectorRegistry()
    for collector in collectors:
        registry.register(collector)
    return generate_latest(registry)


class Counted:
    """What the processes that share a directory counted, the ended ones included."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def collect(self) -> list[Metric]:
        with settled(self.directory):
            # An empty file: its process has just made it.
            files = [str(path) for path in self.directory.glob("*.db") if path.stat().st_size]
            return list(MultiProcessCollector.merge(files, accumulate=True))


class Installation:
    """Cluster-wide figures, the same from every process that is asked: aggregate them with max(), not sum()."""

    def collect(self) -> Iterator[Metric]:
        up = GaugeMetricFamily(
            "ordered_work_backend_up", "1 if it works, as /health/ready sees it.", labels=["backend"]
        )
        checks = {name: how for name, how in health.checks().items() if name in BACKENDS}
        for name, found in checks.items():
            up.add_metric([name], found == "ok")
        yield up
        if checks["postgresql"] != "ok" or checks["migrations"] != "ok":
            return
        try:
            for figures in _figures:
                yield from figures()
        except DatabaseError as error:
            connection.close()
            log.warning("figures are missing", error=str(error).strip().splitlines()[:1])
