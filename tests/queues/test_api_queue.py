"""GET /queue, its verbs and its limits, and GET /kinds."""

from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from queues import event_log
from queues.lifecycle import control
from queues.models import Request, UserQueue
from queues.sql.statement import Statement
from queues.states import QueueState, Status
from tests.queues.api import Caller, ahead
from tests.queues.rows import NOW, a_long_story, queue_of, request_in
from tests.queues.threads import at_once

pytestmark = pytest.mark.django_db


def test_the_queue_of_one_who_never_asked_for_anything_is_idle(alice: Caller) -> None:
    assert alice.get("queue").json == {
        "state": "idle", "paused": False, "depth": 0, "limit": 1000, "oldest_waiting_at": None, "running": None,
        "finished_per_minute": 0, "eta_seconds": 0, "blocked_by": None, "limited_by": None,
    }  # fmt: skip
    assert not UserQueue.objects.exists()


def test_a_queue_tells_what_runs_what_waits_and_for_how_long(alice: Caller) -> None:
    queue = a_long_story(alice.user)
    queue_of(alice.user, avg_service_seconds=2.5, waiting_limit=7)
    running = alice.get("queue").json
    assert running["running"] == str(queue.requests.get(seq=8).id)
    assert running["oldest_waiting_at"] == (NOW + timedelta(minutes=9)).isoformat().replace("+00:00", "Z")
    assert (running["state"], running["depth"], running["limit"]) == ("draining", 5, 7)
    assert (running["eta_seconds"], running["blocked_by"]) == (12.5, None)


def test_a_blocked_queue_names_the_head_that_blocks_it(alice: Caller) -> None:
    queue = queue_of(alice.user, last_seq=2, published_seq=2, state=QueueState.BLOCKED, avg_service_seconds=1)
    head = request_in(queue, 1, Status.RETRYING, attempt=3, on_failure="block")
    shown = alice.get("queue").json
    assert (shown["blocked_by"], shown["running"], shown["eta_seconds"]) == (str(head.id), None, None)


def test_the_pace_is_that_of_the_last_minute(alice: Caller) -> None:
    queue = queue_of(alice.user, last_seq=300, published_seq=300, done_seq=300)
    for seq in range(1, 6):
        request_in(queue, seq, Status.SUCCEEDED, timezone.now() - timedelta(seconds=90 if seq < 3 else 9))
    request_in(queue, 6, Status.CANCELLED, timezone.now())
    assert alice.get("queue").json["finished_per_minute"] == 3
    for seq in range(7, 207):
        request_in(queue, seq, Status.SUCCEEDED, timezone.now() - timedelta(seconds=16))
    assert 300 < alice.get("queue").json["finished_per_minute"] <= 400  # a hundred within the last 15 s


def test_what_is_asked_for_often_costs_one_statement(alice: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    a_long_story(alice.user)
    mine = alice.submit()["id"]
    run, ran = Statement.rows, []

    def counted(self: Statement, **values: Any) -> list[Any]:
        ran.append(self.text)
        return run(self, **values)

    monkeypatch.setattr(Statement, "rows", counted)
    for ask in (
        lambda: alice.submit(),
        lambda: alice.post("requests/batch", {"requests": [{"kind": "demo.echo", "payload": 1}] * 100}),
        lambda: alice.get("queue"),
        lambda: alice.get(f"requests/{mine}"),
        lambda: alice.get(f"requests/{uuid4()}"),
        lambda: alice.get("requests/not-an-id"),
    ):
        ran.clear()
        with CaptureQueriesContext(connection) as queries:
            ask()
        assert (len(ran), len(queries)) == (1, 0)


def test_pause_and_resume_are_seen_at_once_and_may_be_repeated(alice: Caller) -> None:
    for verb, paused in (("pause", True), ("pause", True), ("resume", False), ("resume", False)):
        answer = alice.post(f"queue/{verb}")
        assert (answer.status, answer.json["paused"]) == (200, paused)
        assert alice.get("queue").json == answer.json


def test_an_owner_cannot_undo_an_operators_pause(alice: Caller) -> None:
    alice.submit()
    queue = UserQueue.objects.get(user=alice.user)
    control.pause(queue.id, "ada: ticket 4711")
    assert alice.post("queue/pause").status == 200, "it is paused"
    refused = alice.post("queue/resume")
    assert (refused.status, refused.json["type"]) == (409, "/problems/conflict")
    assert refused.json["detail"] == "An operator paused your queue; only an operator can resume it."
    assert alice.get("queue").json["paused"] is True
    queue.refresh_from_db()
    assert (queue.operator_paused, queue.paused_by) == (True, "ada: ticket 4711"), "whose pause it is stays as it was"
    control.resume(queue.id, operator=True)
    assert alice.post("queue/resume").json["paused"] is False


def test_an_operators_pause_takes_the_place_of_the_owners_and_the_next_operators_does_not(alice: Caller) -> None:
    alice.post("queue/pause")
    queue = UserQueue.objects.get(user=alice.user)
    assert (queue.operator_paused, queue.paused_by) == (False, "its owner")
    control.pause(queue.id, "ada: ticket 4711")
    control.pause(queue.id, "bob: another")
    queue.refresh_from_db()
    assert (queue.operator_paused, queue.paused_by) == (True, "ada: ticket 4711")
    assert alice.post("queue/resume").status == 409


def test_a_pause_that_changes_nothing_is_no_line_in_the_log(alice: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    alice.submit()
    told: list[str] = []
    monkeypatch.setattr(event_log, "intervened", lambda event, *_: told.append(event))
    for _ in range(2):
        assert alice.post("queue/pause").status == 200
    assert told == ["paused"]
    for _ in range(2):
        assert alice.post("queue/resume").status == 200
    assert told == ["paused", "resumed"]


def test_an_owners_pause_is_lifted_by_its_owner_or_an_operator(alice: Caller) -> None:
    alice.post("queue/pause")
    assert alice.post("queue/resume").json["paused"] is False
    alice.post("queue/pause")
    queue = UserQueue.objects.get(user=alice.user)
    control.resume(queue.id, operator=True)
    assert alice.get("queue").json["paused"] is False
    # A word left over from before the pause binds nobody.
    UserQueue.objects.filter(id=queue.id).update(operator_paused=True)
    alice.post("queue/pause")
    assert alice.post("queue/resume").json["paused"] is False


def test_a_purge_cancels_what_waits_and_leaves_what_runs(alice: Caller) -> None:
    a_long_story(alice.user)
    other = Caller()
    a_long_story(other.user)
    assert alice.post("queue/purge").json["running"] is not None
    statuses = {r["sequence"]: r["status"] for r in alice.get("requests?order=asc").json["results"]}
    assert [statuses[seq] for seq in (7, 8, 9, 10, 12)] == [
        "succeeded", "running", "cancelled", "cancelled", "cancelled",
    ]  # fmt: skip
    assert not alice.get("requests?status=scheduled").json["results"]
    assert len(other.get("requests?status=scheduled").json["results"]) == 3


def test_a_full_queue_says_when_to_come_back(alice: Caller) -> None:
    queue = queue_of(alice.user, last_seq=3, waiting_limit=3, avg_service_seconds=40.5)
    refused = alice.post("requests", {"kind": "demo.echo", "payload": 1})
    assert (refused.status, refused.json["type"], refused.headers["Retry-After"]) == (429, "/problems/queue-full", "41")
    assert "RateLimit" in refused.headers
    two = [{"kind": "demo.echo", "payload": 1}] * 2
    assert alice.post("requests/batch", {"requests": two}).headers["Retry-After"] == "81"
    assert alice.post("requests/batch", {"requests": two * 2}).errors == {"requests": "length"}
    queue_of(alice.user, avg_service_seconds=None)
    assert alice.post("requests", two[0]).headers["Retry-After"] == "1"
    queue.refresh_from_db()
    assert (queue.last_seq, Request.objects.count()) == (3, 0)


def test_a_queue_holds_as_many_scheduled_requests_as_waiting_ones(alice: Caller) -> None:
    queue_of(alice.user, waiting_limit=1)
    alice.submit(not_before=ahead(days=1))
    again = alice.post("requests", {"kind": "demo.echo", "payload": 1, "not_before": ahead(days=1)})
    assert (again.status, again.headers["Retry-After"], "scheduled" in again.json["detail"]) == (429, "60", True)
    alice.submit()
    queue_of(alice.user, waiting_limit=0)
    assert alice.post("requests", {"kind": "demo.echo", "payload": 1}).status == 429


@pytest.mark.django_db(transaction=True)
def test_a_limit_is_not_passed_by_coming_at_once() -> None:
    alice = Caller()
    queue_of(alice.user, waiting_limit=7)
    body = {"kind": "demo.echo", "payload": 1}
    answers = at_once(16, lambda _: Caller(alice.user, alice.token).post("requests", body))
    assert sorted(answer.status for answer in answers) == [202] * 7 + [429] * 9
    assert sorted(a.json["sequence"] for a in answers if a.status == 202) == list(range(1, 8))


@pytest.mark.django_db(transaction=True)
def test_the_first_requests_of_a_user_may_come_at_once() -> None:
    alice = Caller()
    body = {"kind": "demo.echo", "payload": 1}
    answers = at_once(12, lambda _: Caller(alice.user, alice.token).post("requests", body))
    assert sorted(answer.json.get("sequence", 0) for answer in answers) == list(range(1, 13))


def test_kinds_are_listed_with_what_their_payload_must_be(alice: Caller) -> None:
    kinds = {kind["kind"]: kind for kind in alice.get("kinds").json}
    assert list(kinds) == sorted(kinds)
    steps = kinds["demo.steps"]
    assert set(steps) == {"kind", "version", "description", "schema", "max_attempts", "time_limit", "on_failure"}
    assert steps["schema"]["properties"]["steps"]["maximum"] == 10_000
    assert kinds["demo.echo"]["schema"] == {}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "requests"), ("POST", "requests"), ("POST", "requests/batch"), ("GET", "requests/x"),
        ("GET", "requests/x/attempts"), ("POST", "requests/x/cancel"), ("POST", "requests/x/retry"),
        ("POST", "requests/x/skip"), ("GET", "queue"), ("POST", "queue/pause"), ("POST", "queue/resume"),
        ("POST", "queue/purge"), ("GET", "kinds"),
    ],
)  # fmt: skip
def test_without_a_token_there_is_only_a_challenge(alice: Caller, method: str, path: str) -> None:
    for token in ("", alice.token[:-4] + "AAAA"):
        caller = Caller(alice.user, "none")
        caller.token = token
        answer = caller.send(method, path, {} if method == "POST" else None)
        assert (answer.status, answer.headers["WWW-Authenticate"][:6]) == (401, "Bearer")
