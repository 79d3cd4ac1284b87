"""What `http.call` sends, and what it makes of the answer."""

import base64
import socket
from typing import Any

import orjson
import pytest
from pydantic import ValidationError

from processing.http_call.transport import CallFailed
from queues import kinds
from queues.models import Attempt
from tests.processing.crew import Hand, new_user, requests_of, statuses_of, submit
from tests.processing.http_call.conftest import Place, Visit, call, request


def test_the_result_is_what_the_server_answered(place: Place) -> None:
    @place.page("/users")
    def users(visit: Visit) -> None:
        visit.answer(201, "grüße".encode(), Content_Type="text/plain", X_Two="a", x_two="b")

    result = call(
        place.at("/users?a=b%20c#part"), "POST", headers={"X-Mine": "yes", "content-type": "text/x"}, body="hällo"
    )
    assert (result["status"], result["body"], result["body_encoding"], result["truncated"]) == (
        201, "grüße", "utf-8", False,
    )  # fmt: skip
    assert (result["headers"]["content-type"], result["headers"]["x-two"]) == ("text/plain", "a, b")
    (visit,) = place.visits
    assert (visit.command, visit.path, visit.content) == ("POST", "/users?a=b%20c", "hällo".encode())
    assert visit.headers["Host"] == f"127.0.0.1:{place.server_port}"
    assert (visit.headers["X-Mine"], visit.headers.get_all("Content-Type")) == ("yes", ["text/x"])


def test_an_object_is_sent_as_json(place: Place) -> None:
    place.page()(lambda visit: visit.answer(204))
    assert call(place.at(), "PUT", body={"a": [1, "ü"]})["status"] == 204
    assert place.visits[0].headers["Content-Type"] == "application/json"
    assert orjson.loads(place.visits[0].content) == {"a": [1, "ü"]}


def test_a_body_is_cut_at_64_kib_and_says_so(place: Place) -> None:
    sizes = {"/fits": 64 * 1024, "/long": 64 * 1024 + 1, "/huge": 64 * 1024 * 1024}
    for path, size in sizes.items():
        place.page(path)(lambda visit, size=size: visit.answer(200, b"x" * size))  # type: ignore[misc]
    results = {path: call(place.at(path)) for path in sizes}
    assert {path: (len(r["body"]), r["truncated"]) for path, r in results.items()} == {
        "/fits": (65536, False),
        "/long": (65536, True),
        "/huge": (65536, True),
    }


def test_a_character_that_the_cut_divides_is_left_out(place: Place) -> None:
    place.page()(lambda visit: visit.answer(200, b"x" + "ü".encode() * 40_000))
    result = call(place.at())
    assert (result["body"], result["truncated"]) == ("x" + "ü" * 32_767, True)


@pytest.mark.parametrize("body", [b"\xff\xfe", b"a\0b", "ü".encode()[:1]])
def test_a_body_that_is_no_text_comes_as_base64(place: Place, body: bytes) -> None:
    place.page()(lambda visit: visit.answer(200, body))
    result = call(place.at())
    assert (base64.b64decode(result["body"]), result["body_encoding"]) == (body, "base64")


def test_a_head_has_headers_only(place: Place) -> None:
    @place.page()
    def page(visit: Visit) -> None:
        visit.send_response(200)
        visit.send_header("Content-Length", "1000")
        visit.end_headers()

    assert (call(place.at(), "HEAD")["headers"]["content-length"], call(place.at(), "HEAD")["body"]) == ("1000", "")


def test_each_attempt_carries_the_same_idempotency_key_unless_the_caller_chose_one(place: Place) -> None:
    place.page()(lambda visit: visit.answer(200))
    asked = request()
    for _ in range(2):
        call(place.at(), "POST", asked)
    call(place.at(), "POST", headers={"idempotency-key": "mine"})
    keys = [visit.headers.get_all("Idempotency-Key") for visit in place.visits]
    assert keys == [[str(asked.id)], [str(asked.id)], ["mine"]]


def test_proxies_of_the_environment_are_not_asked(
    place: Place, elsewhere: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, elsewhere.at())
    place.page()(lambda visit: visit.answer(200))
    assert call(place.at())["status"] == 200
    assert elsewhere.visits == []


def test_a_server_that_fails_is_tried_again(place: Place, hand: Hand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kinds.Kind, "delay", lambda *_: 0)
    place.page()(lambda visit: visit.answer(503 if len(place.visits) < 3 else 200, b"at last"))
    user = new_user()
    submit(user, {"method": "POST", "url": place.at()}, kind="http.call")
    hand.settle()
    (done,) = requests_of(user)
    assert (done.status, done.attempt, done.result["body"]) == ("succeeded", 3, "at last")
    (first, _) = Attempt.objects.filter(request=done, outcome="failed").order_by("number")
    assert first.error["message"] == "The server answered 503 Service Unavailable."


def test_a_call_that_the_server_refuses_gets_no_other_attempt(place: Place, hand: Hand) -> None:
    place.page()(lambda visit: visit.answer(422))
    user = new_user()
    submit(user, {"method": "GET", "url": place.at()}, kind="http.call")
    hand.settle()
    assert statuses_of(user) == ["failed"]
    assert len(place.visits) == 1
    assert "422" in requests_of(user)[0].error["message"]


def test_no_connection_is_a_failed_attempt(names: dict[str, list[list[str]]]) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        with pytest.raises(CallFailed, match="No connection"):
            call(f"http://127.0.0.1:{bound.getsockname()[1]}/")
    names["gone.test"] = [[]]
    with pytest.raises(CallFailed):
        call("http://gone.invalid/")


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\na\0: b\r\n\r\n",
    ],
)
def test_an_answer_that_is_none_is_a_failed_attempt(place: Place, answer: bytes) -> None:
    place.page()(lambda visit: visit.wfile.write(answer))
    with pytest.raises(CallFailed):
        call(place.at())


def test_another_address_of_the_name_is_tried(place: Place, names: dict[str, list[list[str]]], allow: Any) -> None:
    allow("127.0.0.0/8")
    place.page()(lambda visit: visit.answer(200))
    names["two.test"] = [["127.0.0.9", "127.0.0.1"]]
    assert call(place.at(host="two.test"))["status"] == 200


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"method": "CONNECT"}, "method"),
        ({"method": "GET / HTTP/1.1\r\nX: y"}, "method"),
        ({"url": "ftp://example.com/"}, "url"),
        ({"url": "file:///etc/passwd"}, "url"),
        ({"url": "http://user:secret@example.com/"}, "url"),
        ({"url": "http://@example.com:80@127.0.0.1/"}, "url"),
        ({"url": "http://example.com/\r\nX: y"}, "url"),
        ({"url": "http://exa\tmple.com/"}, "url"),
        ({"url": "http://example.com/\0"}, "url"),
        ({"url": "http:///"}, "url"),
        ({"headers": {"Host": "inside"}}, "headers"),
        ({"headers": {"content-LENGTH": "1"}}, "headers"),
        ({"headers": {"Transfer-Encoding": "chunked"}}, "headers"),
        ({"headers": {"Connection": "X-Api-Key"}}, "headers"),
        ({"headers": {"Proxy-Authorization": "x"}}, "headers"),
        ({"headers": {"X": "1", "x": "2"}}, "headers"),
        ({"headers": {"X": "y\r\nZ: 1"}}, "headers"),
        ({"headers": {"X": "y\n"}}, "headers"),
        ({"headers": {"X": "y\0"}}, "headers"),
        ({"headers": {"X\n": "y"}}, "headers"),
        ({"headers": {"X:": "y"}}, "headers"),
        ({"headers": {"": "y"}}, "headers"),
        ({"headers": {"X": 1}}, "headers"),
        ({"body": "x"}, ""),
        ({"body": 1}, "body"),
        ({"timeout": 0.5}, "timeout"),
        ({"timeout": 61}, "timeout"),
        ({"timeout": "10"}, "timeout"),
        ({"verify": False}, "verify"),
    ],
    ids=str,
)
def test_a_payload_that_does_not_fit_names_its_field(change: dict[str, Any], field: str) -> None:
    schema = kinds.find("http.call").schema
    assert schema is not None
    with pytest.raises(ValidationError) as wrong:
        schema.model_validate_json(orjson.dumps({"method": "GET", "url": "http://example.com/"} | change))
    assert {str(error["loc"][0]) if error["loc"] else "" for error in wrong.value.errors()} == {field}


def test_a_header_of_the_transport_is_refused_with_a_sentence() -> None:
    schema = kinds.find("http.call").schema
    assert schema is not None
    with pytest.raises(ValidationError, match="Host is written by the service; leave it out"):
        schema.model_validate_json('{"method": "GET", "url": "http://example.com/", "headers": {"Host": "x"}}')
