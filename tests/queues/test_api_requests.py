"""What POST /requests takes, and how a request is shown to its owner."""

import uuid

import orjson
import pytest

from queues.models import Request
from tests.queues.api import Caller

pytestmark = pytest.mark.django_db


def test_an_accepted_request_is_answered_with_its_place_and_where_to_look(alice: Caller) -> None:
    alice.submit("first")
    answer = alice.post("requests", {"kind": "demo.echo", "payload": {"b": 1, "a": 2}})
    assert answer.status == 202
    assert answer.headers["Location"] == f"/api/v1/requests/{answer.json['id']}"
    assert answer.headers["RateLimit"] == '"submit";r=5998;t=60'
    shown = answer.json
    assert list(shown) == [
        "id", "kind", "version", "status", "sequence", "position", "eta_seconds", "payload", "attempt", "max_attempts",
        "progress", "result", "error", "retry_of", "cancel_requested", "created_at", "not_before", "expires_at",
        "started_at", "finished_at",
    ]  # fmt: skip
    assert (shown["status"], shown["sequence"], shown["position"], shown["attempt"]) == ("queued", 2, 1, 0)
    assert shown["created_at"].endswith("Z")
    assert alice.get(f"requests/{shown['id']}").json == shown


@pytest.mark.parametrize(
    "payload",
    [
        "null", '"text"', "1.0", "1e5", "1E+2", "-0", "-0.0", "1e300", "0.12345678901234567890123",
        "9223372036854775807", '{"payload":{"payload":1}}',
        '{"b":1,"a":{"z":[],"y":{}}}', '"\\u0041\\ud83d\\ude00é"', '{ "spaced" : [ 1 ,\t2 ]\n}',
        '{"a":"}],\\"","payload":"\\\\"}',
    ],
)  # fmt: skip
def test_a_payload_comes_back_to_the_letter(alice: Caller, payload: str) -> None:
    body = f'{{ "version":1 ,"kind" :"demo.echo", "expires_at":null,\n"payload" :{payload}\r\n}}'.encode()
    answer = alice.post("requests", body)
    assert answer.status == 202, answer.content
    kept = f'"payload":{payload},"attempt"'.encode()
    assert kept in answer.content
    assert kept in alice.get(f"requests/{answer.json['id']}").content
    assert kept in alice.get("requests").content
    batch = alice.post("requests/batch", b'{"requests":[{"kind":"demo.echo","payload":[]}, ' + body + b"]}")
    assert batch.status == 202, batch.content
    assert kept in batch.content
    assert Request.objects.get(id=answer.json["id"]).payload == orjson.loads(payload)


@pytest.mark.parametrize("who", ["stranger", "nobody", "malformed", "shouted"])
def test_a_foreign_request_answers_as_one_that_never_was(alice: Caller, who: str) -> None:
    mine = alice.submit()["id"]
    asked = {"stranger": mine, "nobody": uuid.uuid4(), "malformed": "%00x", "shouted": str(mine).upper()}[who]
    asker = Caller()
    answers = {
        asker.get(f"requests/{asked}{rest}", X_Request_ID="same").content for rest in ("", "?wait=0", "/attempts")
    }
    never = asker.get(f"requests/{uuid.uuid4()}", X_Request_ID="same")
    assert answers == {never.content}
    assert never.status == 404


def test_a_request_without_a_living_session_is_not_accepted(alice: Caller) -> None:
    alice.submit()
    alice.user.end_sessions()
    answer = alice.post("requests", {"kind": "demo.echo", "payload": 1})
    assert (answer.status, answer.json["type"]) == (401, "/problems/session-ended")
    assert Request.objects.count() == 1


@pytest.mark.parametrize(
    "path", ["requests", "requests/{id}", "requests/x", "requests/{id}/attempts", "queue", "kinds"]
)
def test_what_a_session_that_has_ended_asks_for_is_not_shown(alice: Caller, path: str) -> None:
    mine = alice.submit()["id"]
    alice.user.end_sessions()
    answer = alice.get(path.format(id=mine))
    assert (answer.status, answer.json["type"]) == (401, "/problems/session-ended")


@pytest.mark.parametrize("verb", ["requests/{id}/cancel", "requests/{id}/retry", "queue/pause", "queue/purge"])
def test_a_session_that_has_ended_controls_nothing(alice: Caller, verb: str) -> None:
    mine = alice.submit()["id"]
    alice.user.end_sessions()
    assert alice.post(verb.format(id=mine)).status == 401
    assert Request.objects.get().status == "queued"


def test_kinds_that_the_caller_has_already_are_not_sent_again() -> None:
    alice = Caller()
    first = alice.get("kinds")
    again = alice.get("kinds", If_None_Match=first.headers["ETag"])
    assert (first.status, again.status, again.content) == (200, 304, b"")
    assert again.headers["ETag"] == first.headers["ETag"]
    assert alice.get("kinds", If_None_Match='"another"').content == first.content


def test_kinds_are_shown_to_nobody_whose_session_has_ended() -> None:
    alice = Caller()
    assert alice.get("kinds").status == 200
    assert alice.post("auth/logout-all").status == 204
    assert alice.get("kinds").status == 401
