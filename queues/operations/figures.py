"""The queues' part of GET /metrics: how the whole installation stands, the same from every process that is asked."""

from collections.abc import Iterator, Sequence

from django.conf import settings
from prometheus_client.core import GaugeMetricFamily, Metric

from queues.limits.deployment import KindAtWork
from queues.operations import backlog
from queues.states import QueueState


def figures() -> Iterator[Metric]:
    """How all queues stand, at most a few seconds ago."""
    found = backlog.recent.latest()
    queues = GaugeMetricFamily(
        "ordered_work_queues", "Users' queues; idle ones only where something is to be published.", labels=["state"]
    )
    depth = GaugeMetricFamily(
        "ordered_work_depth", "Requests without a final status, by their queue's state.", labels=["state"]
    )
    for state in QueueState:
        queues.add_metric([state.value], found.queues(state))
        depth.add_metric([state.value], sum(group.depth for group in found.groups if group.state == state))
    oldest = GaugeMetricFamily(
        "ordered_work_oldest_waiting_seconds", "Age of the oldest waiting request.", labels=["queues"]
    )
    for which, age in found.ages.items():
        oldest.add_metric([which], age)
    lag = GaugeMetricFamily(
        "ordered_work_dispatcher_lag_seconds", "How long the oldest thing has been due.", labels=["task"]
    )
    for task, seconds in found.lag.items():
        lag.add_metric([task], seconds)
    yield from (queues, depth, oldest, lag)
    yield from _of_kinds(found.kinds)
    yield GaugeMetricFamily("ordered_work_depth_max", "Depth of the deepest queue.", found.deepest)
    yield GaugeMetricFamily("ordered_work_queues_paused", "Paused queues, idle ones included.", found.paused)
    yield GaugeMetricFamily("ordered_work_unpublished", "Accepted and not in RabbitMQ yet.", found.unpublished)
    yield GaugeMetricFamily("ordered_work_dispatchers_leading", "Shards that have a leader.", found.dispatchers)
    yield GaugeMetricFamily("ordered_work_worker_processes", "Worker processes alive.", found.workers)
    yield GaugeMetricFamily(
        "ordered_work_oldest_transaction_seconds",
        "Age of the oldest transaction that keeps dead versions of rows from being pruned.",
        found.oldest_transaction,
    )
    for name in ("backlog_query", "standing"):  # the second is its name until 0.2.0: docs/metrics.md
        yield GaugeMetricFamily(f"ordered_work_{name}_seconds", "What reading these figures took.", found.took)


def _of_kinds(kinds: Sequence[KindAtWork]) -> Iterator[Metric]:
    """Of those that have a limit or are paused, or that somebody waits for."""
    running = GaugeMetricFamily("ordered_work_kind_running", "Requests of a limited kind that run.", labels=["kind"])
    held = GaugeMetricFamily(
        "ordered_work_kind_held_back", "Queues whose head waits for its kind's limit or pause.", labels=["kind"]
    )
    age = GaugeMetricFamily(
        "ordered_work_kind_held_back_seconds", "How long the first of these has waited.", labels=["kind", "why"]
    )
    for kind in kinds:
        if kind.running is not None:
            running.add_metric([kind.kind], kind.running)
        if kind.running is not None or kind.waiting:
            held.add_metric([kind.kind], kind.waiting)
            age.add_metric([kind.kind, "paused" if kind.paused else "limit"], kind.waits_seconds or 0.0)
    yield from (running, held, age)
    yield GaugeMetricFamily(
        "ordered_work_kind_wait_alert_seconds", "KIND_WAIT_SECONDS: longer is an alert.", settings.ENV.kind_wait_seconds
    )
