"""What failed is counted, exported and tried again; what is old is forgotten."""

import json
import stat
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone

from queues.lifecycle import control
from queues.management import command_base
from queues.management.command_base import Exit
from queues.management.commands import failed as failed_command
from queues.models import Attempt, OperatorAction, Request, UserQueue
from queues.operations import selectors
from queues.states import QueueState, Status
from tests.processing.crew import new_user
from tests.queues.commands import run
from tests.queues.management.conftest import AGES_AGO
from tests.queues.rows import queue_of, request_in

pytestmark = pytest.mark.django_db


def test_old_requests_are_forgotten_in_batches_and_failed_ones_kept() -> None:
    queue = queue_of(new_user(), last_seq=9, published_seq=9, done_seq=7, state=QueueState.READY)
    for seq in range(1, 6):
        gone = request_in(queue, seq, Status.SUCCEEDED, AGES_AGO, id=looking_back(AGES_AGO, seq))
    Attempt.objects.create(request=gone, number=1, started_at=AGES_AGO, finished_at=AGES_AGO, outcome="failed")
    kept = [
        request_in(queue, 6, Status.FAILED, AGES_AGO, id=looking_back(AGES_AGO, 6)),
        request_in(queue, 7, Status.SUCCEEDED),
        request_in(queue, 8, Status.CANCELLED, AGES_AGO, id=looking_back(AGES_AGO, 8)),  # ahead of the head
        request_in(queue, 9, Status.QUEUED, AGES_AGO, id=looking_back(AGES_AGO, 9), retry_of=gone),
    ]
    words = ("requests", "prune", "--older-than", "30d", "--batch-size", "2", "--json")
    assert run(*words, "--dry-run").json["would_delete"] == 5
    ran = run(*words, "--yes")
    assert ran.json["deleted"] == 5
    assert "2 deleted" in ran.err
    assert "4 deleted" in ran.err
    assert set(Request.objects.values_list("id", flat=True)) == {request.id for request in kept}
    assert Request.objects.get(seq=9).retry_of_id is None
    assert OperatorAction.objects.get().outcome == "5 deleted"
    assert run(*words, "--yes", "--status", "failed").json["deleted"] == 1


def looking_back(moment: Any, number: int) -> Any:
    """An id as it would have been given then."""
    return selectors.UUID(int=(int(moment.timestamp() * 1000) << 80) + (7 << 76) + (2 << 62) + number)


def test_the_longest_age_of_all_is_one_that_can_be_asked_for() -> None:
    longest = f"{command_base.LONGEST_SPAN.days}d"
    assert run("requests", "prune", "--older-than", longest, "--dry-run", "--json").json["would_delete"] == 0
    for words in (("requests", "list"), ("failed", "summary")):
        assert run(*words, "--since", longest, "--json").json == []


@pytest.fixture
def dead() -> list[Request]:
    users = new_user(), new_user()
    found = []
    for user in users:
        queue = queue_of(user, last_seq=3, published_seq=3, done_seq=3)
        for seq, kind in enumerate(("demo.echo", "demo.flaky", "demo.echo"), 1):
            error = {"type": "Timeout" if seq == 2 else "Refused", "message": "no", "at": AGES_AGO.isoformat()}
            found.append(request_in(queue, seq, Status.FAILED, kind=kind, payload={"failures": 0}, error=error))
    return found


def test_failures_are_counted_by_kind_and_error(dead: list[Request]) -> None:
    rows = run("failed", "summary", "--json").json
    assert [(r["kind"], r["error_type"], r["requests"], r["queues"]) for r in rows] == [
        ("demo.echo", "Refused", 4, 2),
        ("demo.flaky", "Timeout", 2, 2),
    ]
    assert run("failed", "summary", "--since", "1h", "--json").json == rows
    assert "demo.flaky" in run("failed", "summary", "--kind", "demo.flaky").lines[1]


def test_all_failed_of_a_kind_are_retried_in_order_and_only_once(dead: list[Request]) -> None:
    words = ("failed", "retry", "--kind", "demo.echo", "--json")
    assert run(*words).status == Exit.NOT_CONFIRMED
    assert run(*words, "--dry-run").json == {"would_retry": 4}
    assert len(run(*words, "--yes", "--limit", "1").json) == 1
    assert len(run(*words, "--yes", "--per-minute", "60000").json) == 3
    assert run(*words, "--yes").json == {"would_retry": 0}
    assert OperatorAction.objects.count() == 2
    for queue in UserQueue.objects.all():
        again = Request.objects.filter(queue=queue, seq__gt=3).order_by("seq")
        assert [r.retry_of.seq for r in again if r.retry_of] == [1, 3]


def test_retries_are_read_in_pages_and_each_waits_its_time(
    dead: list[Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Any] = []
    real = control.retry_once

    def fails_again(request_id: Any) -> None:
        real(request_id)
        again = Request.objects.filter(retry_of=request_id)
        again.update(status=Status.FAILED, finished_at=timezone.now())
        told.append(request_id)

    monkeypatch.setattr(failed_command, "sleep", lambda seconds: told.append(seconds))
    monkeypatch.setattr(control, "retry_once", fails_again)
    ran = run("failed", "retry", "--yes", "--per-minute", "120", "--batch-size", "4", "--json")
    ids = [request.id for request in sorted(dead, key=lambda one: (one.queue_id, one.seq))]
    assert [row["request"] for row in ran.json] == [str(one) for one in ids]
    assert told == [step for number, one in enumerate(ids) for step in (0.5 if number else 0.0, one)]


def test_failures_are_exported_for_the_operators_eyes_alone(dead: list[Request], tmp_path: Path) -> None:
    path = tmp_path / "failed.jsonl"
    ran = run("failed", "export", "--output", path)
    assert ran.err.strip() == "6 exported"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    exported = [json.loads(line) for line in path.read_text().splitlines()]
    assert {row["id"] for row in exported} == {str(request.id) for request in dead}
    assert exported[0]["payload"] == {"failures": 0}
    assert len(run("failed", "export", "--kind", "demo.flaky").lines) == 2
    again = run("failed", "export", "--output", path)
    assert (again.status, "File exists" in again.said) == (Exit.USAGE, True)
