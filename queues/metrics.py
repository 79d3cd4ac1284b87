"""What is counted of requests, in the process where it happens. Never a label that grows with users.

Counted after the commit, once for each statement: accepting costs one increment for a whole batch, recording one for
each kind, status and bucket in it. docs/metrics.md lists all names.
"""

from bisect import bisect_left
from collections import Counter as Tally
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from prometheus_client import Counter, Gauge, Histogram

from queues import kinds, throughput
from queues.kinds import Kind
from queues.states import FINAL, AttemptOutcome, Status
from queues.values import Outcome


class BatchHistogram(Histogram):
    """A histogram that takes many observations for about the price of one.

    prometheus_client has no such call, so this one knows how it keeps them. `tests/queues/test_metrics.py` compares.
    """

    def observe_all(self, seconds: Sequence[float]) -> None:
        """Observe each of them."""
        if len(seconds) == 1:
            self.observe(seconds[0])
            return
        tally = Tally(bisect_left(self._upper_bounds, each) for each in seconds)
        self._sum.inc(sum(seconds))
        for bucket, count in tally.items():
            self._buckets[bucket].inc(count)


WAITING_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600)
RUNNING_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900)

REJECTED = AttemptOutcome.REJECTED.value  # in the place of `failed`
ACCEPTED = Counter("ordered_work_accepted", "Requests accepted: committed in PostgreSQL.", ["kind"])
FINISHED = Counter("ordered_work_finished", "Requests that got their final status.", ["kind", "status"])
ATTEMPTS = Counter("ordered_work_attempts", "Attempts that ended, by how.", ["kind", "outcome"])
WAITING = BatchHistogram(
    "ordered_work_waiting_seconds",
    "From accepted (or from its not_before) to the beginning of the first attempt.",
    ["kind"],
    buckets=WAITING_BUCKETS,
)
RUNNING = BatchHistogram(
    "ordered_work_running_seconds",
    "From the beginning of the first attempt to the final status, backoff between attempts included.",
    ["kind"],
    buckets=RUNNING_BUCKETS,
)
CACHE_ASKED = Counter("ordered_work_cache_asked", "Looks for a finished request in Redis, by outcome.", ["outcome"])
STREAMS = Gauge("ordered_work_streams", "Event streams that are open.", multiprocess_mode="livesum")
HANDLER = BatchHistogram(
    "ordered_work_handler_seconds", "What one attempt took its handler.", ["kind"], buckets=RUNNING_BUCKETS
)


@cache
def _series(metric: Any, *labels: str) -> Any:
    """One series of a metric, found in a tenth of the time that labels() takes."""
    return metric.labels(*labels)


def count_accepted(accepted: Sequence[Kind]) -> None:
    """Requests of these kinds were accepted."""
    for kind, count in Tally(kind.name for kind in accepted).items():
        _series(ACCEPTED, kind).inc(count)
    throughput.tally.accepted(len(accepted))


def count_recorded(outcomes: Sequence[Outcome]) -> None:
    """A worker recorded these outcomes."""
    ended: Tally[tuple[str, Status, AttemptOutcome | None]] = Tally()
    waited, ran, handled = defaultdict(list), defaultdict(list), defaultdict(list)
    for outcome in outcomes:
        work = outcome.work
        if work is None:
            continue
        kind = work.kind
        ended[kind, outcome.status, outcome.outcome] += 1
        if outcome.started_at is None or outcome.finished_at is None:
            continue  # given up before its turn
        started, finished = outcome.started_at.timestamp(), outcome.finished_at.timestamp()
        handled[kind].append(finished - started)
        if work.began_at is None:
            waited[kind].append(max(0.0, started - work.ready_at))
        if outcome.status != Status.RETRYING:
            ran[kind].append(finished - (started if work.began_at is None else work.began_at))
    for (kind, status, how), count in ended.items():
        if status != Status.RETRYING:
            # A request that its handler rejected is its caller's error, and no failing kind.
            told = REJECTED if how == AttemptOutcome.REJECTED and status == Status.FAILED else status.value
            _series(FINISHED, kind, told).inc(count)
            throughput.tally.finished(kind, told, count)
        if how is not None:
            _series(ATTEMPTS, kind, how.value).inc(count)
    for histogram, measured in ((WAITING, waited), (RUNNING, ran), (HANDLER, handled)):
        for kind, seconds in measured.items():
            _series(histogram, kind).observe_all(seconds)


def count_lost(kind: str, final: bool) -> None:
    """An attempt was lost with its worker; whether it was the last one."""
    ATTEMPTS.labels(kind, AttemptOutcome.LOST.value).inc()
    if final:
        FINISHED.labels(kind, Status.FAILED.value).inc()
        throughput.tally.finished(kind, Status.FAILED, 1)


def count_given_up(ended: Mapping[str, int], status: Status) -> None:
    """So many requests of each kind were cancelled, skipped or expired while no worker had them."""
    for kind, count in ended.items():
        FINISHED.labels(kind, status.value).inc(count)
        throughput.tally.finished(kind, status, count)


def begin_at_zero() -> None:
    """Show every kind from the start: a counter that appears with its first event hides that event from rate()."""
    for kind in {kind.name for kind in kinds.all_kinds()}:
        ACCEPTED.labels(kind)
        for status in (*FINAL, REJECTED):
            FINISHED.labels(kind, str(status))
        for outcome in AttemptOutcome:
            ATTEMPTS.labels(kind, outcome.value)
        for histogram in (WAITING, RUNNING, HANDLER):
            histogram.labels(kind)
    for found in ("hit", "miss", "unavailable"):
        CACHE_ASKED.labels(found)
