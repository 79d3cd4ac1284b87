"""The examples run, against servers that do what they are about: lose answers, limit, wait for a call."""

import sys
import time
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import pytest
from django.conf import settings

import queues
from processing.handlers import HandlerRequest
from queues import kinds
from queues.models import Request
from scripts.place import ROOT
from tests.answering import Answer, serving
from tests.processing.crew import Hand, attempts_of, new_user, requests_of, statuses_of
from tests.processing.kinds import kept

APPS = ("payments", "reports", "weather")


@pytest.fixture(autouse=True)
def _examples(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    with kept():
        for name in APPS:
            sys.modules.pop(f"{name}.handlers", None)
            import_module(f"{name}.handlers")
        yield


def sooner(monkeypatch: pytest.MonkeyPatch) -> None:
    """Backoff in no time."""
    monkeypatch.setattr(kinds.Kind, "delay", lambda *_: 0.01)


def test_a_card_is_charged_once_although_the_gateway_loses_its_answers(
    hand: Hand, monkeypatch: pytest.MonkeyPatch
) -> None:
    charged: dict[str, Any] = {}
    calls: list[str] = []

    def gateway(path: str, headers: dict[str, str], body: Any) -> Answer:
        key = headers["Idempotency-Key"]
        calls.append(key)
        charged.setdefault(key, body)  # it charges ..
        return (500, {}, None) if len(calls) < 3 else (201, {}, {"id": f"charge of {body['order']}"})  # .. and fails

    sooner(monkeypatch)
    user = new_user()
    with serving(gateway) as address:
        monkeypatch.setenv("PAYMENTS_GATEWAY", f"{address}/charges")
        queues.submit(user, "payments.charge", {"order": "7", "cents": 1999})
        hand.settle()
    (request,) = requests_of(user)
    assert (request.status, request.result) == ("succeeded", {"order": "7", "charge": "charge of 7"})
    assert calls == [str(request.id)] * 3
    assert list(charged.values()) == [{"order": "7", "cents": 1999}]


@pytest.mark.parametrize("status", [408, 409, 429])
def test_a_charge_is_no_refusal_while_the_gateway_says_come_again(
    status: int, hand: Hand, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter([(500, {}, None), (status, {}, None), (200, {}, {"id": "the first charge"})])
    sooner(monkeypatch)
    user = new_user()
    with serving(lambda *_: next(answers)) as address:
        monkeypatch.setenv("PAYMENTS_GATEWAY", address)
        queues.submit(user, "payments.charge", {"order": "7", "cents": 1999})
        hand.settle()
    (request,) = requests_of(user)
    assert (request.status, request.result) == ("succeeded", {"order": "7", "charge": "the first charge"})


def test_a_card_that_is_refused_stops_its_users_queue(hand: Hand, monkeypatch: pytest.MonkeyPatch) -> None:
    user = new_user()
    with serving(lambda *_: (402, {}, None)) as address:
        monkeypatch.setenv("PAYMENTS_GATEWAY", address)
        for order in ("7", "8"):
            queues.submit(user, "payments.charge", {"order": order, "cents": 1999})
        hand.dispatch()
        hand.work()
    first, second = requests_of(user)
    assert (first.status_now, second.status_now) == ("blocked", "queued")
    assert attempts_of(first) == [(1, "rejected")]


def test_a_report_tells_how_far_it_is_and_calls_back_once(hand: Hand, monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[Any] = []
    told: list[tuple[int, int]] = []

    def progress(request: HandlerRequest, current: int, total: int, note: str = "") -> None:
        told.append((current, total))
        if len(told) == 2:
            raise RuntimeError("in the middle of the first attempt")

    def callback(path: str, headers: dict[str, str], body: Any) -> Answer:
        called.append(body)
        return 200, {}, None

    sooner(monkeypatch)
    monkeypatch.setattr(HandlerRequest, "progress", progress)
    monkeypatch.setattr(settings.ENV, "http_call_allow", "127.0.0.1")
    user = new_user()
    with serving(callback) as address:
        asked = {"title": "Orders", "pages": 3, "callback": f"{address}/done"}
        submitted = queues.submit(user, "reports.build", asked)
        hand.settle()
    assert statuses_of(user) == ["succeeded", "succeeded"]
    report = Request.objects.get(id=submitted.id)
    assert report.result == {"lines": ["Orders", "page 1", "page 2", "page 3"]}
    assert told == [(1, 3), (2, 3), (1, 3), (2, 3), (3, 3)]
    assert called == [{"report": str(submitted.id), "pages": 3}]


def test_a_limited_api_is_asked_again_when_it_says_so(hand: Hand, monkeypatch: pytest.MonkeyPatch) -> None:
    allowed: list[float] = []
    refused: list[str] = []

    def api(path: str, headers: dict[str, str], body: Any) -> Answer:
        now = time.monotonic()
        if allowed and now - allowed[-1] < 0.2:
            refused.append(path)
            return 429, {"Retry-After": "0.2"}, None
        allowed.append(now)
        return (404, {}, None) if path.endswith("/Atlantis") else (200, {}, {"at": path})

    user = new_user()
    with serving(api) as address:
        monkeypatch.setenv("WEATHER_API", f"{address}/weather")
        for place in ("Berlin", "New York", "Atlantis"):
            queues.submit(user, "weather.now", {"place": place})
        hand.settle()
    assert refused
    assert statuses_of(user) == ["succeeded", "succeeded", "failed"]
    assert [request.result for request in requests_of(user)] == [
        {"at": "/weather/Berlin"},
        {"at": "/weather/New%20York"},
        None,
    ]
