"""The verbs of requests, and what a request shows when it ran."""

from typing import Any

import pytest

from queues.models import Attempt, UserQueue
from queues.notify import progress
from queues.states import AttemptOutcome, QueueState, Status
from tests.queues.api import Caller
from tests.queues.rows import NOW, a_long_story, queue_of, request_in

pytestmark = pytest.mark.django_db


def test_what_waits_is_cancelled_once_and_then_said_to_be_so(alice: Caller) -> None:
    mine = alice.submit()["id"]
    answer = alice.post(f"requests/{mine}/cancel")
    assert (answer.status, answer.json["status"]) == (200, "cancelled")
    again = alice.post(f"requests/{mine}/cancel")
    assert (again.status, again.json["type"], "cancelled" in again.json["detail"]) == (409, "/problems/conflict", True)


def test_a_running_request_is_asked_to_stop(alice: Caller) -> None:
    queue = a_long_story(alice.user)
    running = queue.requests.get(seq=8)
    assert alice.post(f"requests/{running.id}/cancel").json["status"] == "running"
    running.refresh_from_db()
    assert running.cancel_asked_at is not None


def test_a_retry_is_a_new_request_that_names_the_old_one(alice: Caller) -> None:
    mine = alice.submit({"n": 1.0})["id"]
    assert alice.post(f"requests/{mine}/retry").status == 409
    alice.post(f"requests/{mine}/cancel")
    again = alice.post(f"requests/{mine}/retry")
    assert (again.status, again.json["retry_of"], again.json["sequence"]) == (202, mine, 2)
    assert b'"payload":{"n": 1.0}' in again.content
    assert again.headers["Location"] == f"/api/v1/requests/{again.json['id']}"
    assert alice.get(f"requests/{again.json['id']}").json == again.json
    UserQueue.objects.update(waiting_limit=1)
    assert alice.post(f"requests/{mine}/retry").status == 429


def test_a_blocked_head_can_be_tried_again_or_skipped(alice: Caller) -> None:
    queue = queue_of(alice.user, last_seq=2, published_seq=2, state=QueueState.BLOCKED)
    head = request_in(queue, 1, Status.RETRYING, attempt=3, on_failure="block")
    after = request_in(queue, 2, Status.QUEUED)
    assert alice.post(f"requests/{after.id}/skip").status == 409
    again = alice.post(f"requests/{head.id}/retry")
    assert (again.status, again.json["id"], again.json["status"]) == (202, str(head.id), "retrying")
    queue_of(alice.user, state=QueueState.BLOCKED, wake_at=None)
    skipped = alice.post(f"requests/{head.id}/skip")
    assert (skipped.status, skipped.json["status"]) == (200, "failed")
    assert alice.post(f"requests/{head.id}/skip").status == 409


@pytest.mark.parametrize("verb", ["cancel", "retry", "skip"])
def test_somebody_elses_request_is_left_alone_and_unknown(alice: Caller, verb: str) -> None:
    mine = alice.submit()["id"]
    bob = Caller()
    answer = bob.post(f"requests/{mine}/{verb}", X_Request_ID="same")
    never = bob.post(f"requests/01a1fab8-0000-7000-8000-000000000000/{verb}", X_Request_ID="same")
    assert (answer.status, answer.content) == (404, never.content)
    assert alice.get(f"requests/{mine}").json["status"] == "queued"


def test_a_running_request_shows_its_progress_and_its_start(alice: Caller) -> None:
    queue = a_long_story(alice.user)
    running = queue.requests.get(seq=8)
    progress.report(running.id, 3, 10, "third")
    shown = alice.get(f"requests/{running.id}").json
    assert (shown["status"], shown["position"], shown["progress"]) == (
        "running", 0, {"current": 3, "total": 10, "note": "third"},
    )  # fmt: skip
    assert shown["started_at"] == NOW.isoformat().replace("+00:00", "Z")
    progress.report(running.id, 10, 10, "half a \ud83d")
    assert alice.get(f"requests/{running.id}").json["progress"]["note"] == "half a ?"


def test_an_error_is_shown_with_its_time_in_utc(alice: Caller) -> None:
    queue = queue_of(alice.user, last_seq=1, published_seq=1, done_seq=1)
    error = {"type": "ValueError", "message": "no\x7f<b>", "at": "2026-11-20T20:00:00.123456+00:00"}
    failed = request_in(queue, 1, Status.FAILED, error=error, attempt=2)
    for number in (1, 2):
        Attempt.objects.create(
            request=failed, number=number, started_at=NOW, finished_at=NOW, outcome=AttemptOutcome.FAILED, error=error
        )
    told = {**error, "at": "2026-11-20T20:00:00.123456Z"}
    assert alice.get(f"requests/{failed.id}").json["error"] == told
    attempts = alice.get(f"requests/{failed.id}/attempts").json
    time = NOW.isoformat().replace("+00:00", "Z")
    assert attempts == [
        {"number": number, "started_at": time, "finished_at": time, "outcome": "failed", "error": told}
        for number in (1, 2)
    ]


def test_success_at_once_is_an_attempt_too(alice: Caller) -> None:
    queue = queue_of(alice.user, last_seq=2, published_seq=1, done_seq=1)
    done = request_in(queue, 1, Status.SUCCEEDED, attempt=1, started_at=NOW)
    waits = request_in(queue, 2, Status.QUEUED)
    (attempt,) = alice.get(f"requests/{done.id}/attempts").json
    assert (attempt["number"], attempt["outcome"], attempt["error"]) == (1, "succeeded", None)
    assert alice.get(f"requests/{waits.id}/attempts").json == []


@pytest.mark.parametrize("result", [None, "text", 0, [], {"status": "failed"}])
def test_a_result_is_shown_as_it_was_recorded(alice: Caller, result: Any) -> None:
    queue = queue_of(alice.user, last_seq=1, published_seq=1, done_seq=1)
    done = request_in(queue, 1, Status.SUCCEEDED, result=result, attempt=1)
    assert alice.get(f"requests/{done.id}").json["result"] == result


def test_what_has_not_changed_is_not_sent_again(alice: Caller) -> None:
    mine = alice.submit()["id"]
    etag = alice.get(f"requests/{mine}").headers["ETag"]
    for known in (etag, f'"other", {etag}', f"W/{etag}", "*"):
        answer = alice.get(f"requests/{mine}", If_None_Match=known)
        assert (answer.status, answer.content, answer.headers["ETag"]) == (304, b"", etag)
    for unknown in ("", '"other"', etag.strip('"')):
        assert alice.get(f"requests/{mine}", If_None_Match=unknown).status == 200
    alice.post(f"requests/{mine}/cancel")
    assert alice.get(f"requests/{mine}", If_None_Match=etag).status == 200
