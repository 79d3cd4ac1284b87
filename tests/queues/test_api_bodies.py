"""What POST /requests and /requests/batch refuse: each field named, nothing kept."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from queues.models import Request, UserQueue
from tests.queues.api import Caller, ahead

pytestmark = pytest.mark.django_db


STEPS = {"kind": "demo.steps", "payload": {"steps": 1}}
ECHO = {"kind": "demo.echo", "payload": 1}


@pytest.mark.parametrize(
    ("body", "errors"),
    [
        ({}, {"kind": "required", "payload": "required"}),
        ({"kind": "demo.echo"}, {"payload": "required"}),
        ({"payload": 1}, {"kind": "required"}),
        ({**ECHO, "kind": 1}, {"kind": "type"}),
        ({**ECHO, "kind": None}, {"kind": "type"}),
        ({**ECHO, "kind": "demo.nothing"}, {"kind": "unknown_kind"}),
        ({**ECHO, "kind": ""}, {"kind": "unknown_kind"}),
        ({**ECHO, "version": 2}, {"version": "unknown_version"}),
        ({**ECHO, "version": "1"}, {"version": "type"}),
        ({**ECHO, "version": True}, {"version": "type"}),
        ({**ECHO, "version": 1.0}, {"version": "type"}),
        ({**ECHO, "version": 2**40}, {"version": "unknown_version"}),
        ({**ECHO, "status": "succeeded", "user": "x"}, {"status": "unknown", "user": "unknown"}),
        ({**ECHO, "attempt": 3, "id": 1}, {"attempt": "unknown", "id": "unknown"}),
        ({**STEPS, "payload": {}}, {"payload.steps": "missing"}),
        ({**STEPS, "payload": None}, {"payload": "model_type"}),
        ({**STEPS, "payload": []}, {"payload": "model_type"}),
        ({**STEPS, "payload": {"steps": "3"}}, {"payload.steps": "int_type"}),
        ({**STEPS, "payload": {"steps": 0}}, {"payload.steps": "greater_than_equal"}),
        ({**STEPS, "payload": {"steps": 2**62}}, {"payload.steps": "less_than_equal"}),
        (
            {**STEPS, "payload": {"steps": 1, "delay_ms": -1, "sleep": 2}},
            {"payload.delay_ms": "greater_than_equal", "payload.sleep": "extra_forbidden"},
        ),
        ({**STEPS, "payload": {"steps": None}, "version": 7}, {"version": "unknown_version"}),
        ({**ECHO, "not_before": "tomorrow"}, {"not_before": "time"}),
        ({**ECHO, "not_before": 1800000000}, {"not_before": "time"}),
        ({**ECHO, "not_before": "2027-01-01T00:00:00"}, {"not_before": "time"}),
        ({**ECHO, "not_before": "2027-02-30T00:00:00Z"}, {"not_before": "time"}),
        ({**ECHO, "not_before": "2027-W01-1T00:00:00Z"}, {"not_before": "time"}),
        ({**ECHO, "not_before": "٢٠٢٧-01-01T00:00:00Z"}, {"not_before": "time"}),
        ({**ECHO, "not_before": ahead(days=367)}, {"not_before": "too_far"}),
        ({**ECHO, "expires_at": ahead(seconds=-1)}, {"expires_at": "past"}),
        ({**ECHO, "expires_at": "9999-12-31T23:59:59-23:59"}, {"expires_at": "time"}),
        ({**ECHO, "not_before": ahead(hours=2), "expires_at": ahead(hours=1)}, {"expires_at": "order"}),
        ([], {"": "type"}),
        ("text", {"": "type"}),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named_field_by_field(alice: Caller, body: Any, errors: dict[str, str]) -> None:
    answer = alice.post("requests", body)
    assert (answer.status, answer.json["type"], answer.errors) == (400, "/problems/validation", errors)
    if isinstance(body, dict):
        batch = alice.post("requests/batch", {"requests": [ECHO, body]})
        assert (batch.status, batch.errors) == (400, {f"requests.1.{field}": code for field, code in errors.items()})
    assert not UserQueue.objects.exists()


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"", ""),
        (b"{", ""),
        (b"\xff", ""),
        (b'{"kind":"demo.echo","kind":"demo.echo","payload":1}', "kind"),
        (b'{"kind":"demo.echo","payload":{"a":1,"a":2}}', "payload.a"),
        (b'{"kind":"demo.echo","payload":"\\u0000"}', "payload"),
        (b'{"kind":"demo.echo","payload":["\\ud800"]}', "payload.0"),
        (b'{"kind":"demo.echo","payload":{"\\ud800":1}}', "payload"),
        (b'{"kind":"demo.echo","payload":NaN}', "payload"),
        (b'{"kind":"demo.echo","payload":1e999}', "payload"),
        (b'{"kind":"demo.echo","payload":9223372036854775808}', "payload"),
        (b'{"kind":"demo.echo","payload":' + b"9" * 5000 + b"}", "payload"),
        (b'{"kind":"demo.echo","payload":' + b"[" * 32 + b"]" * 32 + b"}", ""),
    ],
)
def test_what_could_not_be_given_back_is_not_taken(alice: Caller, body: bytes, field: str) -> None:
    answer = alice.post("requests", body)
    assert (answer.status, list(answer.errors)) == (400, [field])
    assert not Request.objects.exists()


def test_an_unknown_kind_is_told_which_there_are(alice: Caller) -> None:
    (error,) = alice.post("requests", {**ECHO, "kind": "demo.eco"}).json["errors"]
    assert "demo.echo, demo.flaky, demo.steps" in error["detail"]


def test_a_payload_wrong_in_a_thousand_places_gets_a_short_answer(alice: Caller) -> None:
    answer = alice.post("requests", {"kind": "demo.steps", "payload": {f"x{n}": n for n in range(2000)}})
    assert answer.status == 400
    assert len(answer.json["errors"]) == 20


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "requests"),
        ([], "requests"),
        ({"requests": {}}, "requests"),
        ({"requests": []}, "requests"),
        ({"requests": [ECHO] * 501}, "requests"),
        ({"requests": [ECHO], "atomic": True}, "atomic"),
        ({"requests": [ECHO, 1]}, "requests.1"),
        ({"requests": [ECHO, None]}, "requests.1"),
    ],
)
def test_a_batch_that_is_none_is_refused_whole(alice: Caller, body: Any, field: str) -> None:
    answer = alice.post("requests/batch", body)
    assert (answer.status, list(answer.errors)) == (400, [field])
    assert not Request.objects.exists()


def test_a_batch_is_taken_in_the_order_given_with_one_statement(alice: Caller) -> None:
    alice.submit("first")
    answer = alice.post("requests/batch", {"requests": [{**ECHO, "payload": n} for n in range(500)]})
    assert answer.status == 202
    shown = answer.json["requests"]
    assert [(one["payload"], one["sequence"], one["position"]) for one in shown] == [
        (n, n + 2, n + 1) for n in range(500)
    ]
    assert answer.headers["RateLimit"] == '"submit";r=5499;t=60'


def test_a_batch_may_be_larger_than_a_single_body_and_not_larger_than_its_own_limit(alice: Caller) -> None:
    text = "x" * 60_000
    assert alice.post("requests", {**ECHO, "payload": text + text}).status == 413
    assert alice.post("requests/batch", {"requests": [{**ECHO, "payload": text}] * 16}).status == 202
    assert alice.post("requests/batch", {"requests": [{**ECHO, "payload": text}] * 18}).status == 413


def test_a_request_for_later_is_scheduled_and_one_for_the_past_is_for_now(alice: Caller) -> None:
    tomorrow = datetime.now(UTC).date() + timedelta(days=1)
    times = {"not_before": f"{tomorrow}t10:00:00.123456+02:00", "expires_at": f"{tomorrow}T20:00:00Z"}
    later = alice.submit(1, **times)
    assert (later["status"], later["sequence"], later["position"]) == ("scheduled", None, None)
    assert (later["not_before"], later["expires_at"]) == (f"{tomorrow}T08:00:00.123456Z", times["expires_at"])
    assert alice.get(f"requests/{later['id']}").json == later
    now = alice.submit(2, not_before="2020-01-01T00:00:00Z", expires_at=ahead(hours=1))
    assert (now["status"], now["sequence"], now["not_before"]) == ("queued", 1, None)


@pytest.mark.parametrize("path", ["requests", "requests/batch", "queue/pause", "requests/x/cancel"])
def test_a_post_takes_no_query(alice: Caller, path: str) -> None:
    answer = alice.post(f"{path}?dry_run=1", ECHO)
    assert (answer.status, list(answer.errors)) == (400, ["dry_run"])
