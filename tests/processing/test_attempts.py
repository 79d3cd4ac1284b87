"""What a handler does, and what becomes of its request and of the ones behind it."""

import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.conf import settings
from django.db import connection
from django.utils import timezone

from processing.handlers import HandlerRequest, Reject, RetryLater
from queues.lifecycle import control
from queues.models import Attempt, UserQueue
from tests.processing.conftest import Script
from tests.processing.crew import (
    Hand,
    attempts_of,
    new_user,
    queue_of,
    requests_of,
    statuses_of,
    submit,
)


def test_a_request_is_run_and_its_result_kept(hand: Hand, script: Script) -> None:
    @script
    def answer(request: HandlerRequest) -> Any:
        return {"sequence": request.sequence, "attempt": request.attempt}

    user = new_user()
    submit(user, "answer", "answer")
    hand.settle()
    assert [r.result for r in requests_of(user)] == [{"sequence": n, "attempt": 1} for n in (1, 2)]
    assert statuses_of(user) == ["succeeded", "succeeded"]


@pytest.mark.parametrize("wrong", [timedelta(days=1), timedelta(days=-1)])
def test_a_wrong_clock_on_a_worker_changes_nothing(
    hand: Hand, script: Script, monkeypatch: pytest.MonkeyPatch, wrong: timedelta
) -> None:
    leases = []

    @script
    def once_more(request: HandlerRequest) -> int:
        with connection.cursor() as cursor:
            cursor.execute("SELECT lease_until - clock_timestamp() FROM queues_userqueue WHERE state = 'draining'")
            leases.extend(left for (left,) in cursor.fetchall())
        if request.attempt == 1:
            raise RuntimeError("not yet")
        return 1

    before = database_now()
    right = time.time, timezone.now
    monkeypatch.setattr(time, "time", lambda: right[0]() + wrong.total_seconds())
    monkeypatch.setattr(timezone, "now", lambda: right[1]() + wrong)
    user = new_user()
    submit(user, "once_more")
    hand.settle()
    after = database_now()
    assert len(leases) == 2
    assert all(timedelta(0) < left <= timedelta(seconds=settings.ENV.lease_seconds) for left in leases)
    (request,) = requests_of(user)
    first, second = Attempt.objects.filter(request=request).order_by("number")
    moments = [before, first.started_at, first.finished_at, second.started_at, second.finished_at, after]
    assert moments == sorted(moments), "all of them by the database's clock"
    assert request.finished_at == second.finished_at


def test_a_handler_is_told_whether_it_may_have_run_before(hand: Hand, script: Script) -> None:
    told = []

    @script
    def note(request: HandlerRequest) -> None:
        told.append((request.sequence, request.attempt, request.may_have_run))
        if told[-1][:2] == (3, 1):
            raise RuntimeError

    user = new_user()
    submit(user, *["note"] * 4)
    hand.dispatch()
    UserQueue.objects.filter(user=user).update(crash_recovery_until_seq=2)  # a worker died that had claimed two
    hand.settle()
    assert told == [(1, 1, True), (2, 1, True), (3, 1, False), (3, 2, True), (4, 1, False)]


def database_now() -> datetime:
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        (now,) = cursor.fetchone()
    return now


def test_a_failed_attempt_is_tried_again_at_the_head_and_holds_no_thread(hand: Hand, script: Script) -> None:
    begun = []

    @script
    def flaky(request: HandlerRequest) -> int:
        begun.append((request.sequence, request.attempt))
        if request.sequence == 1 and request.attempt < 3:
            raise RuntimeError("not yet")
        return request.sequence

    user = new_user()
    submit(user, "flaky", "flaky")
    hand.dispatch()
    assert hand.work() == 1, "the worker is free again, and no token is under way"
    assert queue_of(user).state == "waiting"
    assert statuses_of(user) == ["retrying", "queued"]
    hand.settle()
    assert begun == [(1, 1), (1, 2), (1, 3), (2, 1)]
    first, second = requests_of(user)
    assert attempts_of(first) == [(1, "failed"), (2, "failed"), (3, "succeeded")]
    assert attempts_of(second) == [], "succeeded at once: its own row says all"
    assert first.attempt == 3
    assert [a.error["message"] for a in Attempt.objects.filter(request=first, outcome="failed")] == ["not yet"] * 2


@pytest.mark.usefixtures("fine")
def test_after_its_last_attempt_a_request_is_failed_and_the_next_one_runs(hand: Hand, script: Script) -> None:
    @script
    def hopeless(request: HandlerRequest) -> int:
        raise RuntimeError("never")

    user = new_user()
    submit(user, "hopeless", "fine")
    hand.settle()
    assert statuses_of(user) == ["failed", "succeeded"]
    first = requests_of(user)[0]
    assert attempts_of(first) == [(1, "failed"), (2, "failed"), (3, "failed")]
    assert first.error["type"] == "RuntimeError"


def test_a_rejected_request_gets_no_other_attempt(hand: Hand, script: Script) -> None:
    @script
    def never(request: HandlerRequest) -> None:
        raise Reject("no such customer")

    user = new_user()
    submit(user, "never")
    hand.settle()
    (request,) = requests_of(user)
    assert (request.status, request.attempt, request.error["message"]) == ("failed", 1, "no such customer")
    assert attempts_of(request) == [(1, "rejected")]


def test_a_handler_chooses_when_it_is_tried_again(hand: Hand, script: Script) -> None:
    @script
    def later(request: HandlerRequest) -> int:
        if request.attempt == 1:
            raise RetryLater(3600, "the other side is closed")
        return 1

    user = new_user()
    submit(user, "later")
    hand.dispatch()
    hand.work()
    queue = queue_of(user)
    assert queue.wake_at is not None
    assert timedelta(minutes=59) < queue.wake_at - timezone.now() <= timedelta(hours=1)
    assert attempts_of(requests_of(user)[0]) == [(1, "postponed")]


@pytest.mark.parametrize("seconds", [1e300, float("inf"), float("nan"), 10**12])
def test_an_absurd_delay_is_still_a_recorded_attempt(hand: Hand, script: Script, seconds: float) -> None:
    @script
    def later(request: HandlerRequest) -> None:
        raise RetryLater(seconds)

    user = new_user()
    submit(user, "later")
    hand.dispatch()
    hand.work()
    assert queue_of(user).state == "waiting"
    assert statuses_of(user) == ["retrying"]


@pytest.mark.usefixtures("fine")
def test_a_blocking_kind_stops_the_queue_until_somebody_decides(hand: Hand, script: Script) -> None:
    @script
    def refused(request: HandlerRequest) -> None:
        raise RuntimeError("refused")

    user = new_user()
    submit(user, "refused", kind="test.block")
    submit(user, "fine")
    hand.dispatch()
    hand.work()
    hand.dispatch()
    assert hand.work() == 0
    assert queue_of(user).state == "blocked"
    assert statuses_of(user) == ["retrying", "queued"]
    control.skip(requests_of(user)[0].id)
    hand.settle()
    assert statuses_of(user) == ["failed", "succeeded"]


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise ValueError("nothing can be said of it")


def leaves_by(error: BaseException) -> Callable[[HandlerRequest], Any]:
    def leave(request: HandlerRequest) -> Any:
        raise error

    return leave


@pytest.mark.usefixtures("fine")
@pytest.mark.parametrize(
    "ends",
    [
        pytest.param(leaves_by(SystemExit(1)), id="SystemExit"),
        pytest.param(leaves_by(KeyboardInterrupt()), id="KeyboardInterrupt"),
        pytest.param(leaves_by(GeneratorExit()), id="GeneratorExit"),
        pytest.param(leaves_by(RuntimeError("x" * 5_000_000)), id="a message of 5 MB"),
        pytest.param(leaves_by(FileNotFoundError("caf\udce9\x00")), id="a surrogate and NUL in the message"),
        pytest.param(leaves_by(Unspeakable()), id="a message that raises"),
        pytest.param(lambda _: object(), id="a result that is no JSON"),
        pytest.param(lambda _: "\ud800", id="a surrogate in the result"),
        pytest.param(lambda _: "x" * 3_000_000, id="a result beyond the limit"),
        pytest.param(lambda _: 2**70, id="a number beyond 64 bits"),
    ],
)
def test_whatever_a_handler_does_its_attempt_is_recorded_and_the_thread_goes_on(
    hand: Hand, script: Script, ends: Callable[[HandlerRequest], Any]
) -> None:
    @script
    def bad(request: HandlerRequest) -> Any:
        return ends(request)

    user, other = new_user(), new_user()
    submit(user, "bad", kind="test.once")
    submit(user, "fine")
    submit(other, "fine")
    hand.settle()
    assert statuses_of(user) == ["failed", "succeeded"]
    assert statuses_of(other) == ["succeeded"]
    error = requests_of(user)[0].error
    assert set(error) == {"type", "message", "at"}
    assert len(error["message"]) <= 2000


def test_a_result_comes_back_to_the_letter(hand: Hand, script: Script) -> None:
    result = {"b": 1, "a": "nul \x00, é, \U0001f600", "number": 1e300, "deep": [[[[]]]]}

    @script
    def letters(request: HandlerRequest) -> Any:
        return result

    user = new_user()
    submit(user, "letters")
    hand.settle()
    (request,) = requests_of(user)
    assert request.result == result
    assert list(request.result) == list(result)


def test_a_kind_whose_handler_is_gone_waits_for_a_deploy(hand: Hand) -> None:
    user = new_user()
    submit(user, "anything", kind="test.gone")
    hand.dispatch()
    hand.work()
    queue = queue_of(user)
    assert queue.state == "waiting"
    assert queue.wake_at is not None
    assert queue.wake_at - timezone.now() > timedelta(seconds=20)
    assert requests_of(user)[0].error["type"] == "NoHandler"
