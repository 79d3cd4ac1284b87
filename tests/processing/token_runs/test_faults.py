"""Nobody in a run waits for, or fails with, somebody else."""

import threading
from typing import Any

import pytest
from django.db import DataError, OperationalError

from accounts.models import User
from processing.broker import token_sender
from processing.broker.errors import BrokerUnavailable
from processing.broker.fetcher import Fetcher
from processing.broker.pointers import queue_name
from processing.broker.source import Source
from processing.handlers import HandlerRequest
from processing.worker import recorder
from processing.worker.drain import drain_queue, drain_queues, fetcher
from processing.worker.turn import Turn
from queues.lifecycle import lease as leases
from queues.lifecycle.lease import Lease, Record
from queues.models import UserQueue
from queues.states import AttemptOutcome, QueueState, Status
from queues.values import Outcome
from tests.processing.conftest import Script
from tests.processing.crew import Hand, new_user, queue_of, requests_of, statuses_of, submit
from tests.processing.frozen import ITS_REQUESTS, QUEUE, frozen
from tests.processing.token_runs.conftest import done, ids_of
from tests.waiting import until


@pytest.mark.usefixtures("undisturbed")
def test_runs_that_end_at_the_same_time_share_a_record(five: list[User], monkeypatch: pytest.MonkeyPatch) -> None:
    recorded: list[int] = []
    record = leases.record_together

    def once_all_wait(records: Any) -> Any:
        recorded.append(len(records))
        if len(recorded) == 1:
            until(lambda: len(recorder._together._waiting) == 4)
        return record(records)

    monkeypatch.setattr(leases, "record_together", once_all_wait)
    runs = [threading.Thread(target=lambda id_=id_: drain_and_close([id_])) for id_ in ids_of(five)]  # type: ignore[misc]
    for run in runs:
        run.start()
    for run in runs:
        run.join(20)
    assert recorded == [1, 4]
    assert done(five) == [1] * 5


def test_a_lease_that_was_lost_meets_the_one_that_its_queue_has_now(hand: Hand, five: list[User]) -> None:
    """Two threads of a process may hold both for a moment: nothing of the old one is written, and all of the new."""
    queue_id = queue_of(five[0]).id
    old = Lease.take(queue_id, 7)
    assert old is not None
    UserQueue.objects.filter(id=queue_id).update(state="ready")
    new = Lease.take(queue_id, 7)
    assert new is not None
    outcome = Outcome(1, Status.SUCCEEDED, 1, AttemptOutcome.SUCCEEDED, "1", None, old.now(), old.now())
    records = [Record(lease, 1, [outcome], QueueState.DRAINING, 1) for lease in (old, new)]
    found = recorder._record_each(records)
    apart = [record for record, one in zip(records, found, strict=True) if one is None]
    assert len(apart) == 1, "a queue twice in one statement"
    refused = [one.lease for one in leases.record_together(apart).fenced_out]
    refused += [one.lease for one in (found[0] or found[1]).fenced_out]  # type: ignore[union-attr]
    assert old in refused
    assert done(five[:1]) == ([0] if new in refused else [1])


@pytest.mark.usefixtures("undisturbed")
def test_what_was_left_out_once_keeps_no_other_run_waiting_again(
    five: list[User], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("project.postgresql.limits._playing", "worker")
    stuck, shared = queue_of(five[2]).id, []
    record = leases.record_together

    def note(records: Any) -> Any:
        if len(records) > 1:
            shared.append(sum(one.lease.queue_id == stuck for one in records))
        return record(records)

    monkeypatch.setattr(leases, "record_together", note)
    with frozen(ITS_REQUESTS, stuck):
        run = threading.Thread(target=lambda: drain_and_close(ids_of(five)))
        run.start()
        until(lambda: done(five) == [1, 1, 0, 1, 1], 10, "they wait for a locked row")
    run.join(20)
    assert done(five) == [1] * 5
    assert sum(shared) <= 1


@pytest.mark.usefixtures("undisturbed")
def test_a_defect_in_one_turn_costs_the_others_nothing(
    hand: Hand, five: list[User], monkeypatch: pytest.MonkeyPatch
) -> None:
    unlucky = five[1]
    real = Turn.run_what_came

    def defective(turn: Turn) -> bool:
        if turn.lease.user_id == unlucky.id:
            raise ZeroDivisionError("a defect")
        return real(turn)

    monkeypatch.setattr(Turn, "run_what_came", defective)
    with pytest.raises(ZeroDivisionError):
        drain_queues(ids_of(five))
    until(lambda: hand.work() or all(done([user]) == [1] for user in five if user != unlucky), 5)
    assert done(five) == [1, 0, 1, 1, 1]
    until(lambda: queue_of(unlucky).state == "ready", 10, "its lease is not given back")


@pytest.mark.usefixtures("undisturbed")
def test_a_run_goes_on_after_a_queue_that_others_took(five: list[User]) -> None:
    Lease.take(queue_of(five[1]).id, 1)
    drain_queues(ids_of(five))
    assert done(five) == [1, 0, 1, 1, 1]


@pytest.mark.usefixtures("undisturbed")
@pytest.mark.parametrize("what", [QUEUE, ITS_REQUESTS])
def test_a_row_that_is_locked_keeps_nobody_else_in_the_run_waiting(
    hand: Hand, five: list[User], script: Script, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """It is locked from when its handler runs: the others' outcomes are recorded, and its own, once it is free."""
    monkeypatch.setattr("project.postgresql.limits._playing", "worker")
    stuck, held, let_go = queue_of(five[2]).id, threading.Event(), threading.Event()

    def hold() -> None:
        with frozen(what, stuck):
            held.set()
            let_go.wait(20)

    @script
    def fine(request: HandlerRequest) -> int:
        if request.queue_id == stuck:
            locker.start()
            held.wait(10)
        return 1

    locker = threading.Thread(target=hold)
    run = threading.Thread(target=lambda: drain_and_close(ids_of(five)))
    run.start()
    try:
        until(lambda: done(five) == [1, 1, 0, 1, 1], 10, "they wait for a locked row")
    finally:
        let_go.set()
        locker.join(20)
        run.join(20)
    assert done(five) == [1] * 5
    assert [request.attempt for user in five for request in requests_of(user)] == [1] * 5


def drain_and_close(ids: list[int]) -> None:
    from django.db import connection

    from tests.processing.crew import forget_reader

    try:
        drain_queues(ids)
    finally:
        forget_reader()
        connection.close()


@pytest.mark.usefixtures("undisturbed")
def test_a_record_that_postgresql_refuses_fails_no_other(
    hand: Hand, five: list[User], monkeypatch: pytest.MonkeyPatch
) -> None:
    record, poisoned = leases.record_together, queue_of(five[3]).id

    def refusing(records: Any) -> Any:
        if any(one.lease.queue_id == poisoned for one in records):
            raise DataError("as asked for: a result that it does not take")
        return record(records)

    with monkeypatch.context() as patch:
        patch.setattr(leases, "record_together", refusing)
        drain_queues(ids_of(five))
    assert done(five) == [1, 1, 1, 0, 1]
    until(lambda: queue_of(five[3]).state == "ready", 10, "its lease is not given back")
    drain_queue(poisoned)
    assert done(five) == [1] * 5


@pytest.mark.usefixtures("undisturbed")
@pytest.mark.parametrize("committed", [True, False])
def test_an_answer_that_is_lost_loses_nothing_of_what_was_recorded_together(
    five: list[User], committed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = leases.record_together

    def lost(records: Any) -> Any:
        monkeypatch.setattr(leases, "record_together", record)
        if committed:
            before = [(one.lease, one.lease.done_seq, one.lease.published_seq) for one in records]
            record(records)
            for lease, done_seq, published in before:
                lease.done_seq, lease.published_seq, lease.state = done_seq, published, "draining"
        raise OperationalError("the connection was lost")

    monkeypatch.setattr(leases, "record_together", lost)
    drain_queues(ids_of(five))
    assert [(queue_of(user).state, queue_of(user).done_seq) for user in five] == [("idle", 1)] * 5
    assert [request.attempt for user in five for request in requests_of(user)] == [1] * 5


@pytest.mark.usefixtures("undisturbed")
def test_a_broker_that_is_lost_costs_no_attempt(hand: Hand, five: list[User], monkeypatch: pytest.MonkeyPatch) -> None:
    wait = Fetcher.wait

    def lost(*_: Any) -> None:
        monkeypatch.setattr(Fetcher, "wait", wait)
        raise BrokerUnavailable("gone")

    monkeypatch.setattr(Fetcher, "wait", lost)
    drain_queues(ids_of(five))
    assert {queue_of(user).state for user in five} <= {"waiting", "idle"}
    hand.settle()
    assert [request.attempt for user in five for request in requests_of(user)] == [1] * 5


@pytest.mark.usefixtures("undisturbed")
def test_a_broker_that_is_lost_within_a_turn_has_nothing_run_again_that_is_over(hand: Hand, script: Script) -> None:
    ran: list[int] = []

    @script
    def note(request: HandlerRequest) -> None:
        ran.append(request.sequence)
        if ran == [1, 2]:
            fetcher().close()  # the third message has not come

    user = new_user()
    submit(user, "note", "note", "note")
    hand.dispatch_singly(user)
    hand.settle()
    assert ran == [1, 2, 3]


@pytest.mark.usefixtures("undisturbed")
def test_what_cannot_be_acked_at_the_end_comes_back(
    hand: Hand, five: list[User], monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: Any) -> None:
        raise BrokerUnavailable("gone")

    with monkeypatch.context() as patch:
        patch.setattr(Source, "_ack", gone)
        drain_queues(ids_of(five[:1]))
    until(lambda: hand.wire.depth(queue_name(queue_of(five[0]).id)) == 1, 5)
    submit(five[0], "fine")
    hand.settle()
    assert statuses_of(five[0]) == ["succeeded", "succeeded"]


def test_a_broker_that_hangs_does_not_hold_up_the_watch(watch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It renews every lease of the process: while it waits for RabbitMQ to take tokens, they would all run out."""
    released = threading.Event()

    class Looked:
        looks = 0

        def check(self) -> None:
            self.looks += 1

        def renewals(self) -> list[Any]:
            return []

        def abandon(self) -> None: ...

    monkeypatch.setattr(token_sender, "pass_on", lambda _: released.wait(20))
    turn = Looked()
    token_sender.pass_on_later([1, 2, 3])
    watch.add(turn)
    try:
        until(lambda: turn.looks > 3, 3, "the watch waits for RabbitMQ")
    finally:
        watch.remove(turn)
        released.set()
