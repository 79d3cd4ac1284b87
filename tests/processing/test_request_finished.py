"""The signal that a request is final: sent once, after the commit, whatever made it final."""

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
from queues.lifecycle import control
from queues.models import Request
from queues.signals import FinishedRequest, request_finished
from tests.processing.conftest import Script
from tests.processing.crew import Hand, new_user, queue_of, statuses_of, submit
from tests.waiting import until


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
        sending.put([one])
        assert began.wait(20)
        for _ in range(10):
            sending.put([one])
        assert sending._unsent.qsize() == 3
    finally:
        free.set()
        request_finished.disconnect(hang)
        until(lambda: sending._unsent.empty())


def test_a_commit_is_told_whole_however_much_became_final_with_it(
    hand: Hand, finished: list[FinishedRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signals, "MOST_UNSENT", 3)
    user = new_user()
    submit(user, *["fine"] * 50)
    control.purge(queue_of(user).pk)
    signals._sending.flush(15)
    assert len(finished) == 50
