"""What came of `async def` handlers is recorded, whatever goes wrong where it is written down."""

from collections.abc import Coroutine, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import structlog
from django.conf import settings
from django.db import OperationalError, transaction
from structlog.testing import capture_logs

from accounts.models import User
from processing.coroutines import event_loop
from processing.handlers import HandlerRequest
from processing.worker import recorder
from processing.worker.coroutines import recording
from processing.worker.coroutines import run as coroutine_run
from processing.worker.coroutines.attempt import CoroutineAttempt
from processing.worker.coroutines.recording import OutcomeRecorder
from processing.worker.coroutines.run import CoroutineRun
from processing.worker.watchdog import Watchdog
from queues import event_log
from queues.lifecycle import lease as leases
from queues.lifecycle.lease import Record
from queues.states import Status
from queues.values import Outcome
from tests.processing.conftest import Script
from tests.processing.coroutines.conftest import Gate
from tests.processing.crew import Hand, all_done, attempts_of, new_user, queue_of, requests_of, submit
from tests.processing.frozen import ITS_REQUESTS, frozen
from tests.waiting import until


def waiting(hand: Hand, gate: Gate, users: int) -> list[User]:
    """Users whose requests wait at the gate."""
    all_ = [new_user() for _ in range(users)]
    for user in all_:
        submit(user, "wait", kind="test.async")
    hand.dispatch()
    hand.work()
    until(lambda: len(gate.waiting) == users)
    return all_


def ends(users: Sequence[User]) -> set[tuple[str, int]]:
    return {(one.status, one.attempt) for user in users for one in requests_of(user)}


def test_what_is_over_while_postgresql_is_away_is_recorded_once_it_is_back(
    hand: Hand, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long that is, as long as the leases live."""
    monkeypatch.setattr(settings.ENV, "lease_seconds", 2)
    users = waiting(hand, gate, 3)
    left = queue_of(users[0]).lease_until

    def away(_: Any) -> Any:
        raise OperationalError("as asked for: PostgreSQL is away")

    with monkeypatch.context() as patch:
        patch.setattr(leases, "record_together", away)
        gate.open()
        until(lambda: (queue_of(users[0]).lease_until - left).total_seconds() > 3, why="its lease runs out")
        assert ends(users) == {("queued", 0)}
    until(all_done)
    assert ends(users) == {("succeeded", 1)}
    assert not gate.waiting


@pytest.mark.parametrize("lost", ["what was asked", "the answer"])
def test_what_it_submits_is_accepted_once_though_postgresql_is_away_for_a_moment(
    hand: Hand, script: Script, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    ran: list[int] = []
    losses = ["first", "second"]

    @contextmanager
    def atomic() -> Iterator[None]:
        if losses and lost == "what was asked":
            raise OperationalError(f"as asked for: the {losses.pop()} loss")
        with transaction.atomic():
            yield
        if losses:
            losses.clear()
            raise OperationalError("as asked for: the answer to the commit is lost")

    @script
    async def again(request: HandlerRequest) -> int:
        ran.append(request.sequence)
        if request.sequence == 1:
            request.submit("test.async", "again")
        return 1

    user = new_user()
    submit(user, "again", kind="test.async")
    monkeypatch.setattr(recorder, "transaction", SimpleNamespace(atomic=atomic))
    hand.settle()
    assert ran == [1, 2]
    assert [(one.status, attempts_of(one)) for one in requests_of(user)] == [("succeeded", [])] * 2


def test_one_outcome_that_cannot_be_told_is_a_failed_attempt_and_harms_no_other(
    hand: Hand, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    unlucky, *others = users = waiting(hand, gate, 4)
    stuck = queue_of(unlucky).id
    real = leases._told

    def tell(record: Record, outcome: Outcome) -> Any:
        if record.lease.queue_id == stuck and outcome.status == Status.SUCCEEDED:
            raise TypeError("as asked for: no JSON")
        return real(record, outcome)

    monkeypatch.setattr(leases, "_told", tell)
    gate.open()
    until(all_done)
    assert ends(others) == {("succeeded", 1)}
    assert ends(users[:1]) == {("failed", 1)}
    assert requests_of(unlucky)[0].error["type"] == "InvalidResult"


def test_a_defect_beside_one_record_harms_no_other(hand: Hand, gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    unlucky, *others = waiting(hand, gate, 4)
    stuck = queue_of(unlucky).id
    real = recording._wanted

    def defective(attempt: CoroutineAttempt) -> Any:
        if attempt.lease.queue_id == stuck:
            raise ZeroDivisionError("a defect")
        return real(attempt)

    monkeypatch.setattr(recording, "_wanted", defective)
    gate.open()
    until(lambda: ends(others) == {("succeeded", 1)})
    until(lambda: queue_of(unlucky).state == "ready", why="its lease is not given back")


def test_a_request_whose_row_is_locked_keeps_no_other_from_being_recorded(
    hand: Hand, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("project.postgresql.limits._playing", "worker")
    locked, *others = users = waiting(hand, gate, 4)
    with frozen(ITS_REQUESTS, queue_of(locked).id):
        gate.open()
        until(lambda: ends(others) == {("succeeded", 1)}, 5)
    until(all_done)
    assert ends(users) == {("succeeded", 1)}


def test_where_nobody_records_the_process_ends_and_nothing_is_lost(
    hand: Hand, gate: Gate, watch: Watchdog, monkeypatch: pytest.MonkeyPatch
) -> None:
    def defective(*_: object) -> None:
        raise MemoryError("as asked for")

    users = waiting(hand, gate, 3)
    with monkeypatch.context() as patch, capture_logs():
        patch.setattr(OutcomeRecorder, "_record", defective)
        gate.open()
        assert watch._end_process.wait(10), "it goes on, and nobody records"
        until(lambda: not gate.waiting)
    assert not watch.stop(0)
    assert ends(users) == {("succeeded", 1)}


def test_a_process_that_ends_records_what_is_over_and_gives_back_what_goes_on(
    hand: Hand, gate: Gate, watch: Watchdog, on_loop: CoroutineRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[int] = []
    keep = coroutine_run.keep_beginnings
    monkeypatch.setattr(coroutine_run, "keep_beginnings", lambda began: kept.append(len(began)) or keep(began))
    with monkeypatch.context() as patch:
        patch.setattr(OutcomeRecorder, "_run", lambda _: None)  # it is far behind
        over = waiting(hand, gate, 3)
        gate.open()
        until(lambda: len(on_loop._outcomes._over) == 3)
        running = waiting(hand, gate, 4)
        assert not watch.stop(0)
    assert ends(over) == {("succeeded", 1)}
    assert {queue_of(user).state for user in running} == {"waiting"}
    assert {(one.attempt, one.started_at is not None) for user in running for one in requests_of(user)} == {(0, True)}
    assert kept == [4], "each asks PostgreSQL by itself"
    on_loop._outcomes._thread = None
    gate.open()


def test_the_log_says_that_one_begins(hand: Hand, gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    event_log._budgets.clear()
    monkeypatch.setattr(event_log, "log", structlog.get_logger())  # one that was used before would not be captured
    with capture_logs() as lines:
        waiting(hand, gate, 1)
    assert [(line["sequence"], line["attempt"]) for line in lines if line["event"] == "started"] == [(1, 1)]
    gate.open()
    until(all_done)


def test_one_that_somebody_cancels_before_its_first_step_fails(hand: Hand, monkeypatch: pytest.MonkeyPatch) -> None:
    def begin_and_cancel(coroutine: Coroutine[Any, Any, Any], _: object) -> Future[None]:
        loop, over = event_loop(), Future[None]()

        def begin() -> None:
            task = loop.create_task(coroutine)
            task.add_done_callback(lambda _: over.set_result(None))
            task.cancel()

        loop.call_soon_threadsafe(begin)
        return over

    user = new_user()
    submit(user, "wait", kind="test.async")
    monkeypatch.setattr(coroutine_run, "begin", begin_and_cancel)
    hand.settle()
    (request,) = requests_of(user)
    assert [how for _, how in attempts_of(request)] == ["failed"] * 3
    assert request.error["type"] == "CancelledError"
