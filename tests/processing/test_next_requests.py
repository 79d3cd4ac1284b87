"""A request that submits the next one, and the signal that one is final."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from django.db import OperationalError, connection, transaction

from accounts.models import User
from processing.handlers import HandlerRequest, Reject
from processing.worker import recorder
from queues import signals
from queues.models import Request, UserQueue
from queues.signals import FinishedRequest, request_finished
from tests.processing.conftest import Script
from tests.processing.crew import (
    Crew,
    Hand,
    all_done,
    attempts_of,
    elsewhere,
    new_user,
    requests_of,
    statuses_of,
    submit,
)
from tests.waiting import until


@pytest.fixture
def finished() -> Iterator[list[FinishedRequest]]:
    found: list[FinishedRequest] = []

    def receive(finished: FinishedRequest, **_: Any) -> None:
        found.append(finished)

    request_finished.connect(receive)
    yield found
    request_finished.disconnect(receive)


@pytest.mark.usefixtures("fine")
@pytest.mark.parametrize("kind", ["test.script", "test.atomic"])
def test_the_next_request_is_submitted_once_whatever_the_attempts(kind: str, hand: Hand, script: Script) -> None:
    @script
    def chain(request: HandlerRequest) -> str:
        request.submit("test.script", "fine")
        request.submit("test.script", "fine")
        if request.attempt < 3:
            raise RuntimeError("after it has submitted")
        return "done"

    user = new_user()
    submit(user, "chain", "fine", kind=kind)
    hand.settle()
    assert statuses_of(user) == ["succeeded"] * 4
    assert [number for number, _ in attempts_of(requests_of(user)[0])] == [1, 2, 3]
    assert [request.payload for request in requests_of(user)] == ["chain", "fine", "fine", "fine"]


def test_nothing_is_submitted_by_a_request_that_failed_or_was_cancelled(hand: Hand, script: Script) -> None:
    @script
    def reject(request: HandlerRequest) -> None:
        request.submit("test.script", "reject")
        raise Reject("no")

    @script
    def heed(request: HandlerRequest) -> None:
        request.submit("test.script", "heed")
        request.ask_to_stop()
        assert request.cancelled

    user = new_user()
    submit(user, "reject", "heed")
    hand.settle()
    assert statuses_of(user) == ["failed", "cancelled"]


@pytest.mark.parametrize("kind", ["test.script", "test.atomic"])
def test_a_worker_that_lost_its_queue_submits_nothing(kind: str, hand: Hand, script: Script) -> None:
    user = new_user()

    @script
    def chain(request: HandlerRequest) -> None:
        request.submit("test.script", "chain")
        elsewhere(lambda: UserQueue.objects.filter(user=user).update(fence=1000))

    submit(user, "chain", kind=kind)
    hand.dispatch()
    hand.work(turns=1)
    assert [request.payload for request in requests_of(user)] == ["chain"]
    assert statuses_of(user) == ["queued"]


@pytest.mark.usefixtures("fine")
def test_a_full_queue_fails_the_attempt_and_what_it_submits_is_accepted_later(hand: Hand, script: Script) -> None:
    user = new_user()

    @script
    def chain(request: HandlerRequest) -> None:
        if request.attempt == 2:
            UserQueue.objects.filter(user=user).update(waiting_limit=10)
        request.submit("test.script", "fine")

    submit(user, "chain")
    UserQueue.objects.filter(user=user).update(waiting_limit=1)
    hand.settle()
    assert statuses_of(user) == ["succeeded", "succeeded"]
    first = requests_of(user)[0]
    assert attempts_of(first)[0] == (1, "failed")


def test_what_a_handler_submits_is_checked_where_it_stands(hand: Hand, script: Script) -> None:
    @script
    def chain(request: HandlerRequest) -> None:
        request.submit("demo.steps", {"steps": 0})

    user = new_user()
    submit(user, "chain", kind="test.once")
    hand.settle()
    (failed,) = requests_of(user)
    assert failed.error["type"] == "Invalid"


@pytest.mark.usefixtures("watch", "fine")
def test_a_chain_runs_in_order_beside_other_users(script: Script) -> None:
    @script
    def chain(request: HandlerRequest) -> int:
        if request.sequence < 10:
            request.submit("test.script", "chain")
        return request.sequence

    users = [new_user() for _ in range(5)]
    with Crew(workers=3):
        for user in users:
            submit(user, "chain")
        until(lambda: Request.objects.filter(seq=10, status="succeeded").count() == 5 and all_done())
    for user in users:
        assert [request.result for request in requests_of(user)] == list(range(1, 11))


@pytest.mark.usefixtures("fine")
def test_receivers_are_told_once_what_is_committed(hand: Hand, script: Script, finished: list[FinishedRequest]) -> None:
    seen: list[str] = []

    def note(finished: FinishedRequest, **_: Any) -> None:
        seen.append(Request.objects.get(id=finished.id).status)

    @script
    def again(request: HandlerRequest) -> None:
        if request.attempt == 1:
            raise RuntimeError
        raise Reject("no")

    request_finished.connect(note)
    try:
        user = new_user()
        submit(user, "fine", "again")
        submit(user, "fine", kind="test.atomic")
        hand.settle()
        until(lambda: len(finished) == 3)
        until(lambda: len(seen) == 3)
    finally:
        request_finished.disconnect(note)
    assert seen == ["succeeded", "failed", "succeeded"], "the row was final when they were called"
    assert [(one.sequence, one.status, one.attempt, one.result) for one in finished] == [
        (1, "succeeded", 1, 1),
        (2, "failed", 2, None),
        (3, "succeeded", 1, 1),
    ]
    assert {one.user_id for one in finished} == {user.id}


@pytest.mark.parametrize("last", [1, 3])
def test_an_atomic_handler_whose_commit_was_not_answered_is_told_as_it_was_committed(
    hand: Hand, script: Script, finished: list[FinishedRequest], monkeypatch: pytest.MonkeyPatch, last: int
) -> None:
    """Its attempt seems to have failed, be it the last one or not; PostgreSQL knows better."""

    unheard: list[int] = []

    @contextmanager
    def unanswered() -> Iterator[None]:
        with transaction.atomic():
            yield
        if unheard.pop():
            raise OperationalError("the answer was lost")

    @script
    def late(request: HandlerRequest) -> int:
        if request.attempt < last:
            raise RuntimeError("not yet")
        unheard.append(1)
        return 1

    monkeypatch.setattr(recorder, "transaction", SimpleNamespace(atomic=unanswered))
    user = new_user()
    submit(user, "late", kind="test.atomic")
    hand.settle()
    until(lambda: finished)
    assert statuses_of(user) == ["succeeded"]
    assert [(one.status, one.attempt, one.result) for one in finished] == [("succeeded", last, 1)]


@pytest.mark.usefixtures("fine")
def test_receivers_that_raise_or_never_return_harm_nothing(
    hand: Hand, finished: list[FinishedRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signals, "_sending", signals.Sending())
    stuck, free = threading.Event(), threading.Event()

    def spoil(**_: Any) -> None:
        connection.cursor().execute("BEGIN")
        raise SystemExit if not stuck.is_set() else RuntimeError

    def hang(**_: Any) -> None:
        stuck.set()
        free.wait(30)

    user = new_user()
    request_finished.connect(spoil)
    try:
        submit(user, "fine")
        hand.settle()
        request_finished.disconnect(spoil)
        request_finished.connect(hang)
        submit(user, "fine", "fine")
        hand.settle()
        until(stuck.is_set)
        assert statuses_of(user) == ["succeeded"] * 3
    finally:
        free.set()
        request_finished.disconnect(spoil)
        request_finished.disconnect(hang)
    until(lambda: len(finished) >= 2)


def test_what_receivers_are_too_slow_for_fills_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "MOST_UNSENT", 3)
    sending = signals.Sending()
    began, free = threading.Event(), threading.Event()

    def hang(**_: Any) -> None:
        began.set()
        free.wait(30)

    one = FinishedRequest(User().id, User().id, "test", 1, 1, signals.Status.SUCCEEDED, 1, None, None, None, None)
    request_finished.connect(hang)
    try:
        sending.put(one)
        assert began.wait(20)
        for _ in range(10):
            sending.put(one)
        assert sending._unsent.qsize() == 3
    finally:
        free.set()
        request_finished.disconnect(hang)
        until(lambda: sending._unsent.empty())
