"""What is counted of requests: what was committed, once, under labels that do not grow."""

import pytest
from prometheus_client import CollectorRegistry, Histogram

from project.telemetry.metrics import exposition
from queues.kinds import find
from queues.lifecycle import control
from queues.metrics import BatchHistogram
from queues.models import Request
from tests.metrics import counted
from tests.processing.crew import new_user, submit
from tests.queues.api import Caller

pytestmark = pytest.mark.django_db(transaction=True)


def test_many_observations_count_as_if_made_one_by_one() -> None:
    seconds = [0.0, 0.5, 1.0, 1.00001, 10, 11, 3]
    registries = CollectorRegistry(), CollectorRegistry()
    one_by_one = Histogram("seconds", "Seconds.", buckets=(1, 10), registry=registries[0])
    at_once = BatchHistogram("seconds", "Seconds.", buckets=(1, 10), registry=registries[1])
    for each in seconds:
        one_by_one.observe(each)
    at_once.observe_all(seconds)
    read = [
        [(s.name, s.labels, s.value) for m in r.collect() for s in m.samples if not s.name.endswith("_created")]
        for r in registries
    ]
    assert read[0] == read[1]


def test_a_batch_is_counted_by_kind_and_a_refused_one_not_at_all() -> None:
    before = counted("accepted_total", kind="demo.echo"), counted("accepted_total", kind="demo.flaky")
    caller = Caller()
    bodies = [{"kind": "demo.echo", "payload": 1}] * 3 + [{"kind": "demo.flaky", "payload": {"failures": 0}}]
    assert caller.post("requests/batch", {"requests": bodies}).status == 202
    assert caller.post("requests/batch", {"requests": [*bodies, {"kind": "no.such"}]}).status == 400
    key = "the-same"
    for _ in range(2):
        assert caller.post("requests", bodies[0], Idempotency_Key=key).status == 202
    after = counted("accepted_total", kind="demo.echo"), counted("accepted_total", kind="demo.flaky")
    assert (after[0] - before[0], after[1] - before[1]) == (3 + 1, 1)


def test_what_is_cancelled_purged_or_expired_is_finished() -> None:
    def finished(status: str) -> float:
        return counted("finished_total", kind="demo.echo", status=status)

    before = finished("cancelled")
    user = new_user()
    submit(user, *range(5), kind="demo.echo")
    control.cancel(Request.objects.get(queue__user=user, seq=3).id)
    control.purge(user.queue.id)
    assert finished("cancelled") - before == 5


def test_every_kind_is_shown_before_its_first_request() -> None:
    assert find("http.call")
    text = exposition().decode()
    assert 'ordered_work_finished_total{kind="http.call",status="failed"}' in text
    assert 'ordered_work_waiting_seconds_bucket{kind="http.call",le="0.005"}' in text
