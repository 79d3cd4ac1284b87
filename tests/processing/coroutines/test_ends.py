"""How `async def` handlers end: each as a plain one would."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from typing import Any

import pytest
from django.conf import settings
from django.db import connection

from accounts.models import User
from processing.handlers import HandlerRequest, Reject, RetryLater
from project.telemetry import tracing
from queues.lifecycle import control
from queues.models import Attempt
from tests.processing.conftest import Script
from tests.processing.crew import Hand, all_done, attempts_of, new_user, requests_of, statuses_of, submit
from tests.waiting import until


def test_each_end_is_recorded_as_that_of_a_plain_one(hand: Hand, script: Script) -> None:
    @script
    async def ends(request: HandlerRequest) -> Any:
        await asyncio.sleep(0)
        if request.sequence == 1 and request.attempt == 1:
            raise RuntimeError("as asked for")
        if request.sequence == 2:
            raise Reject("no")
        if request.sequence == 3:
            raise SystemExit
        if request.sequence == 4:
            return float("nan")
        if request.sequence == 5 and request.attempt == 1:
            raise RetryLater(0)
        return request.sequence

    user = new_user()
    submit(user, *["ends"] * 6, kind="test.async")
    hand.settle(30)
    assert statuses_of(user) == ["succeeded", "failed", "failed", "failed", "succeeded", "succeeded"]
    first, second, third, fourth, fifth, _ = requests_of(user)
    assert attempts_of(first) == [(1, "failed"), (2, "succeeded")]
    assert 'raise RuntimeError("as asked for")' in Attempt.objects.get(request=first, number=1).traceback
    assert attempts_of(second) == [(1, "rejected")]
    assert [how for _, how in attempts_of(third)] == ["failed"] * 3
    assert fourth.error["type"] == "InvalidResult"
    assert attempts_of(fifth) == [(1, "postponed"), (2, "succeeded")]


def test_at_its_time_limit_it_is_cancelled_and_its_next_attempt_waits_for_its_end(hand: Hand, script: Script) -> None:
    seen: list[str] = []

    @script
    async def slow(request: HandlerRequest) -> int:
        seen.append(f"begin {request.attempt}")
        try:
            if request.attempt == 1:
                await asyncio.sleep(30)  # here it stands
        finally:
            await asyncio.sleep(0.1)
            seen.append(f"end {request.attempt}")
        return 1

    user = new_user()
    submit(user, "slow", kind="test.async.limited")
    hand.settle()
    (request,) = requests_of(user)
    assert attempts_of(request) == [(1, "timed_out"), (2, "succeeded")]
    assert seen == ["begin 1", "end 1", "begin 2", "end 2"]
    told = Attempt.objects.get(request=request, number=1).traceback
    assert "here it stands" in told
    assert "processing/worker" not in told
    assert "processing/coroutines.py" not in told


def test_one_that_waits_for_a_locked_row_keeps_the_others_waiting_for_a_second_at_most(
    hand: Hand, script: Script
) -> None:
    locked = new_user()
    took: list[float] = []

    @script
    async def change(request: HandlerRequest) -> None:
        began = time.monotonic()
        try:
            await User.objects.filter(id=locked.id).aupdate(email="changed@example.com")
        finally:
            took.append(time.monotonic() - began)

    user = new_user()
    submit(user, "change", kind="test.async")
    hand.dispatch()
    holder = connection.copy()
    with closing(holder), holder.cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.execute("SELECT FROM accounts_user WHERE id = %s FOR UPDATE", [locked.id])
        hand.work()
        until(lambda: took)
    assert 0.9 < took[0] < 5
    hand.settle()
    (request,) = requests_of(user)
    assert [how for _, how in attempts_of(request)] == ["failed", "succeeded"]


def test_its_user_cancels_it(hand: Hand, script: Script) -> None:
    @script
    async def patient(request: HandlerRequest) -> int:
        while not request.cancelled:
            await asyncio.sleep(0.01)
        return 1

    user = new_user()
    (accepted,) = submit(user, "patient", kind="test.async")
    hand.dispatch()
    hand.work()
    control.cancel(accepted.submission.id)
    until(all_done)
    assert statuses_of(user) == ["cancelled"]


def test_what_it_submits_is_accepted_with_its_record(hand: Hand, script: Script) -> None:
    @script
    async def again(request: HandlerRequest) -> int:
        if request.sequence == 1:
            request.submit("test.async", "again")
            if request.attempt == 1:
                raise RuntimeError("as asked for")
        return 1

    user = new_user()
    submit(user, "again", kind="test.async")
    hand.settle()
    assert statuses_of(user) == ["succeeded", "succeeded"]


def test_where_what_it_submits_has_no_room_the_attempt_fails(
    hand: Hand, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    @script
    async def again(request: HandlerRequest) -> int:
        request.submit("test.async", "again")
        return 1

    user = new_user()
    submit(user, "again", kind="test.async")
    monkeypatch.setattr(settings.ENV, "waiting_limit", 0)
    hand.settle()
    (request,) = requests_of(user)
    assert [how for _, how in attempts_of(request)] == ["failed"] * 3
    assert request.error["type"] == "QueueFull"


def test_spans_of_a_handler_hang_below_that_of_its_attempt(
    hand: Hand, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    spans: list[str] = []

    class Tracer:
        @contextmanager
        def attempt(self, kind: str, traceparent: str | None, attributes: Any) -> Iterator[Any]:
            spans.append(f"begin {attributes['ordered_work.sequence']}")
            yield lambda outcome, error: spans.append(f"{outcome} {error}")
            spans.append("end")

        def current(self) -> dict[str, str]:
            return {}

    @script
    async def traced(request: HandlerRequest) -> None:
        spans.append("handler")
        raise Reject("no")

    user = new_user()
    submit(user, "traced", kind="test.async")
    hand.dispatch()
    monkeypatch.setattr(tracing, "tracer", Tracer())
    hand.work()
    until(partial(spans.__contains__, "end"))
    assert spans == ["begin 1", "handler", "rejected Reject", "end"]
    until(all_done)
