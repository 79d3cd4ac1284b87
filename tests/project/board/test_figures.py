"""What the board counts: all processes together, by kind and minute."""

from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from django.utils import timezone

from accounts.models import User
from queues import kinds, metrics, throughput
from queues.models import Attempt
from queues.states import AttemptOutcome, Status
from queues.values import Outcome
from tests.client import Client
from tests.metrics import counted
from tests.project.board.conftest import BOARD
from tests.queues.rows import queue_of, request_in
from tests.waiting import until

pytestmark = pytest.mark.django_db


def test_it_shows_what_was_accepted_and_finished_in_each_minute(operator: Client, clean_pace: None) -> None:
    echo = kinds.find("demo.echo", 1)
    metrics.count_accepted([echo] * 7)
    metrics.count_given_up({"demo.echo": 3}, Status.CANCELLED)
    metrics.count_lost("demo.echo", final=True)
    metrics.count_lost("demo.echo", final=False)

    def hour() -> tuple[int, int, int]:
        throughput.tally.flush()  # its thread may be at it
        found = throughput.read()
        assert found is not None
        return sum(found.accepted), sum(found.finished), len(found.minutes)

    until(lambda: hour() == (7, 1, 60), 60, "all is counted, once")
    told = operator.get(BOARD).context["board"]
    assert told.charts[0].most == 7
    assert [(row["kind"], row["failed"], row["finished"]) for row in told.kinds if row["failed"]] == [
        ("demo.echo", 1, 1)
    ]


def test_many_processes_count_together(clean_pace: None) -> None:
    for _ in range(3):
        process = throughput.Tally()
        process.accepted(2)
        assert process.flush()
    hour = throughput.read()
    assert hour is not None
    assert sum(hour.accepted) == 6


def test_what_was_counted_while_redis_was_away_is_added_when_it_is_back(
    operator: Client, clean_pace: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: Any) -> None:
        raise throughput.RedisUnavailable

    process = throughput.Tally()
    with monkeypatch.context() as without:
        without.setattr(throughput, "ADD", away)
        without.setattr(throughput, "READ", away)
        process.accepted(5)
        assert not process.flush()
        assert "Redis is away, which counts what" in operator.get(BOARD).content.decode()
    assert process.flush()
    hour = throughput.read()
    assert hour is not None
    assert sum(hour.accepted) == 5


def test_failing_kinds_are_told_with_their_commonest_error(operator: Client) -> None:
    queue = queue_of(User.objects.create_user("bob"), last_seq=9)
    for seq, error in enumerate(["ValueError", "KeyError", "KeyError"], 1):
        request_in(queue, seq, Status.FAILED, timezone.now(), error={"type": error, "message": "x", "at": ""})
    request_in(queue, 4, Status.CANCELLED)
    (row,) = [row for row in operator.get(BOARD).context["board"].kinds if row["failures"]]
    assert (row["kind"], row["failures"], row["error"]) == ("demo.echo", 3, "KeyError")


def test_it_tells_how_long_requests_of_each_kind_waited_and_ran(operator: Client) -> None:
    queue = queue_of(User.objects.create_user("ada"), last_seq=100, done_seq=100, published_seq=100)
    now = timezone.now() - timedelta(minutes=1)
    for n in range(100):
        times = {"started_at": now + timedelta(seconds=n), "finished_at": now + timedelta(seconds=n + 2)}
        request_in(queue, n + 1, Status.SUCCEEDED, now, **times)
    (found,) = operator.get(BOARD).context["board"].latencies
    assert (found.kind, found.requests) == ("demo.echo", 100)
    assert [round(seconds, 1) for seconds in found.waited] == [49.5, 94.0, 98.0]
    assert found.ran == [2, 2, 2]


def test_what_a_handler_rejected_is_its_callers_error_and_no_failing_kind(operator: Client, clean_pace: None) -> None:
    queue = queue_of(User.objects.create_user("bob"), last_seq=9)
    at = timezone.now()
    error = {"type": "AddressRefused", "message": "x", "at": ""}
    rejected = request_in(queue, 1, Status.FAILED, at, kind="http.call", error=error)
    Attempt.objects.create(request=rejected, number=rejected.attempt, started_at=at, finished_at=at, outcome="rejected")
    metrics.count_recorded([ended("http.call", AttemptOutcome.REJECTED), ended("demo.echo", AttemptOutcome.FAILED)])

    def finished() -> int:
        throughput.tally.flush()
        found = throughput.read()
        return sum(found.finished) if found else 0

    until(lambda: finished() == 2, 60, "both are counted")
    told = operator.get(BOARD).context["board"]
    assert [(row["kind"], row["failed"]) for row in told.kinds if row["failed"]] == [("demo.echo", 1)]


def test_rejected_and_failed_requests_are_counted_apart() -> None:
    def finished(status: str) -> float:
        return counted("finished_total", kind="http.call", status=status)

    before = finished("rejected"), finished("failed")
    metrics.count_recorded([ended("http.call", AttemptOutcome.REJECTED)] * 3)
    assert (finished("rejected"), finished("failed")) == (before[0] + 3, before[1])


def ended(kind: str, how: AttemptOutcome) -> Outcome:
    work: Any = SimpleNamespace(kind=kind)
    return Outcome(1, Status.FAILED, 1, how, work=work)
