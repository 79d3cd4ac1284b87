"""Rows that somebody has locked for ever: the others notice nothing, and theirs have their turn when they are free."""

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from typing import Any

import pytest
from django.db import OperationalError, connection
from django.db.models import F
from django.db.models.functions import Now
from django.utils import timezone

from accounts.models import User
from processing.broker.pointers import Pointer, queue_name
from processing.broker.rabbitmq import Publisher
from processing.dispatch import dead_leases as module
from processing.dispatch.dispatcher import Dispatcher
from processing.dispatch.unmarked import Unmarked
from project.postgresql import limits
from queues.lifecycle import outbox
from queues.lifecycle.expiry import expire
from queues.lifecycle.lease import Lease
from queues.lifecycle.outbox import PublishBatch, Shard
from queues.lifecycle.recovery import recover
from queues.models import Request, UserQueue
from queues.operations import erasure
from queues.states import QueueState
from tests.processing.crew import Hand, elsewhere, new_user, queue_of, statuses_of, submit
from tests.processing.frozen import ITS_REQUESTS, QUEUE, frozen
from tests.waiting import until

ALL = Shard(0, 1)
OTHERS_SECONDS = 2.0


@contextmanager
def leading(dispatcher: Dispatcher) -> Iterator[None]:
    """It runs in a thread, and leads."""
    stop = threading.Event()
    thread = threading.Thread(target=dispatcher.run, args=(stop,))
    thread.start()
    try:
        until(dispatcher.leading.is_set)
        yield
    finally:
        stop.set()
        thread.join(20)
        assert not thread.is_alive(), "it hangs"


def published(user: User) -> int:
    return queue_of(user).published_seq


def test_a_locked_queue_keeps_nobody_else_waiting_and_is_published_once(
    hand: Hand, monkeypatch: pytest.MonkeyPatch
) -> None:
    brought: list[str] = []
    real = Publisher.publish

    def publish(self: Publisher, queues: Any) -> Any:
        batch: list[tuple[str, Pointer]] = list(queues)
        brought.extend(name for name, _ in batch)
        return real(self, batch)

    monkeypatch.setattr(Publisher, "publish", publish)
    stuck, others = new_user(), [new_user() for _ in range(3)]
    submit(stuck, "note", "note")
    queue = queue_of(stuck)
    row = ExitStack()
    row.enter_context(frozen(QUEUE, queue.id))
    with row, leading(hand.dispatcher):
        end = time.monotonic() + 3
        while time.monotonic() < end:
            began = time.monotonic()
            for user in others:
                submit(user, "note")
            until(lambda: all(published(user) == queue_of(user).last_seq for user in others), OTHERS_SECONDS)
            print(f"the others waited {time.monotonic() - began:.3f} s")
        assert published(stuck) == 0
        assert brought.count(queue_name(queue.id, 0)) <= 1, "it is published, though not marked"
        assert hand.dispatcher.leading.is_set(), "no server is away"
        row.close()
        until(lambda: published(stuck) == 2, 3, "it has its turn when its row is free")


def test_a_frozen_acceptance_keeps_nobody_else_waiting(hand: Hand) -> None:
    """An API process that is stopped between ACCEPT and its commit."""
    stuck, other = new_user(), new_user()
    submit(stuck, "note")
    with (
        leading(hand.dispatcher),
        frozen("UPDATE queues_userqueue SET last_seq = last_seq + 1 WHERE id = %s", queue_of(stuck).id),
    ):
        submit(other, "note")
        until(lambda: published(other) == 1, OTHERS_SECONDS)


def test_what_a_locked_queue_has_scheduled_keeps_nobody_out_of_line(hand: Hand) -> None:
    stuck, other = new_user(), new_user()
    later = timezone.now() + timedelta(hours=1)
    submit(stuck, *["note"] * 5, not_before=later)
    submit(other, "note", not_before=later + timedelta(milliseconds=10))
    Request.objects.update(not_before=F("not_before") - timedelta(hours=2))
    with frozen(QUEUE, queue_of(stuck).id):
        assert outbox.enter_line(ALL, 3) == 1, "however many are due in a locked queue, they are not counted"
        assert statuses_of(other) == ["queued"]
    assert (outbox.enter_line(ALL, 3), outbox.enter_line(ALL, 3)) == (3, 2)


def test_no_worker_comes_back_to_a_locked_queue_again_and_again(
    hand: Hand, ran: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each look at it costs a thread the time that a lock is waited for."""
    monkeypatch.setattr(limits, "_playing", "worker")
    taken: list[int] = []
    take = Lease.take

    def noted(queue_id: int, *rest: Any) -> Lease | None:
        taken.append(queue_id)
        return take(queue_id, *rest)

    monkeypatch.setattr(Lease, "take", noted)
    stuck = new_user()
    submit(stuck, "note")
    hand.dispatch()
    queue = queue_of(stuck)
    with frozen(QUEUE, queue.id):
        hand.work()
        assert (taken, hand.wire.tokens()) == ([queue.id], 0)
    hand.dispatcher.send_again(0, 1)
    hand.work()
    assert statuses_of(stuck) == ["succeeded"]


def test_a_locked_queue_wakes_later_than_the_others(hand: Hand) -> None:
    stuck, other = new_user(), new_user()
    for user in (stuck, other):
        submit(user, "note")
    UserQueue.objects.update(published_seq=1, state=QueueState.WAITING, wake_at=Now())
    with frozen(QUEUE, queue_of(stuck).id):
        assert outbox.wake(ALL, 1) == [queue_of(other).id]
    assert outbox.wake(ALL, 1) == [queue_of(stuck).id]


def deserted(user: User) -> Lease:
    """Its lease was taken by a worker that is no more."""
    submit(user, "note")
    outbox.mark_published(outbox.unpublished(ALL, 0, 100))
    lease = Lease.take(queue_of(user).id, 1)
    assert lease is not None
    UserQueue.objects.filter(user=user).update(lease_until=Now() - timedelta(seconds=1))
    return lease


@pytest.mark.parametrize("what", [QUEUE, ITS_REQUESTS])
def test_a_dead_lease_of_a_locked_queue_is_ended_later_than_the_others(hand: Hand, what: str) -> None:
    stuck, other = new_user(), new_user()
    for user in (stuck, other):
        deserted(user)
    with frozen(what, queue_of(stuck).id):
        began = time.monotonic()
        for _ in range(10):
            hand.dispatcher.end_dead_leases()
        assert time.monotonic() - began < OTHERS_SECONDS
        assert (queue_of(stuck).state, queue_of(other).state) == ("draining", "ready")
        assert len(hand.dispatcher.dead_leases._again) == 1

    def ended() -> bool:
        hand.dispatcher.end_dead_leases()
        return queue_of(stuck).state == "ready"

    until(ended, 3)
    hand.dispatcher.end_dead_leases()
    assert hand.dispatcher.dead_leases._again == {}, "nothing of it is kept"


def test_a_lease_that_cannot_be_ended_is_its_queues_own_trouble(hand: Hand, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its user is erased just then, or something nobody expects is wrong with it."""
    erased, other = new_user(), new_user()
    for user in (erased, other):
        deserted(user)
    bad = queue_of(erased).id

    def fails(queue_id: int, fence: int, **more: Any) -> bool:
        if queue_id == bad:
            raise Request.DoesNotExist
        return recover(queue_id, fence, **more)

    monkeypatch.setattr(module, "recover", fails)
    hand.dispatcher.sweep()
    assert (queue_of(erased).state, queue_of(other).state) == ("draining", "ready")


def test_what_lapses_in_a_locked_queue_keeps_nobody_elses_from_ending(hand: Hand) -> None:
    stuck, other = new_user(), new_user()
    past = timezone.now() - timedelta(minutes=1)
    submit(stuck, *["note"] * 5, expires_at=past)
    for count, what in enumerate((QUEUE, ITS_REQUESTS), 1):
        submit(other, "note", expires_at=past)
        with frozen(what, queue_of(stuck).id):
            assert expire(ALL, 3) == 1
            assert statuses_of(other) == ["expired"] * count
    assert (expire(ALL, 3), expire(ALL, 3)) == (3, 2)


def test_a_user_erased_while_their_requests_lapse_costs_nobody_anything(hand: Hand) -> None:
    erased, other = new_user(), new_user()
    past = timezone.now() - timedelta(minutes=1)
    submit(erased, *["note"] * 50, expires_at=past)
    submit(other, "note", expires_at=past)
    with leading(hand.dispatcher):
        queue_id = queue_of(erased).id
        while elsewhere(lambda: erasure.remove_requests(queue_id, 10)):
            continue
        erased.delete()
        until(lambda: statuses_of(other) == ["expired"], OTHERS_SECONDS)
        assert hand.dispatcher.sweeper.defect is None


def test_a_statement_that_took_too_long_is_no_server_that_is_away(hand: Hand, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []
    with leading(hand.dispatcher):
        monkeypatch.setattr(hand.dispatcher, "step", lambda: tried.append(1) or cut_off())
        until(lambda: len(tried) > 2)
        assert hand.dispatcher.leading.is_set()


def cut_off(*_: object) -> int:
    """A statement that takes too long."""
    with connection.cursor() as cursor:
        cursor.execute("SET statement_timeout = '1ms'")
        try:
            cursor.execute("SELECT pg_sleep(1)")
        finally:
            cursor.execute("RESET statement_timeout")
    return 0


@pytest.mark.parametrize("part", ["enter_line", "wake", "stale_ready"])
def test_a_part_of_a_round_that_takes_too_long_holds_up_no_other(
    hand: Hand, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    user = new_user()
    monkeypatch.setattr(outbox, part, cut_off)
    with leading(hand.dispatcher):
        for number in range(1, 6):
            submit(user, "note")
            until(lambda number=number: published(user) == number, OTHERS_SECONDS)
        assert hand.dispatcher.leading.is_set()


def test_an_expiry_that_takes_too_long_holds_up_no_other_part_of_the_sweep(
    hand: Hand, monkeypatch: pytest.MonkeyPatch
) -> None:
    pruned: list[int] = []
    monkeypatch.setattr("processing.dispatch.sweeper.expire", cut_off)
    monkeypatch.setattr("processing.dispatch.sweeper.retention.prune", cut_off)
    monkeypatch.setattr("processing.dispatch.sweeper.pruning.prune_actions", lambda count: pruned.append(count) or 0)
    with leading(hand.dispatcher):
        until(lambda: pruned, OTHERS_SECONDS, "what comes behind it has its turn")


def test_what_cannot_be_marked_is_kept_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("processing.dispatch.unmarked.MOST", 3)
    unmarked = Unmarked()
    for queue_id in range(10):
        unmarked.put([PublishBatch(queue_id, 0, 0, 1)])
    assert unmarked.queue_ids == [7, 8, 9]
    monkeypatch.setattr("processing.dispatch.unmarked.FORGET_SECONDS", -1.0)
    unmarked.put([PublishBatch(9, 0, 0, 1)])
    assert unmarked.queue_ids == [7, 8], "a queue that is erased meanwhile is not kept for ever"


def test_waiting_for_a_lock_within_patience_is_told_from_a_server_that_is_away(hand: Hand) -> None:
    lease = deserted(new_user())
    with frozen(QUEUE, lease.queue_id), pytest.raises(OperationalError, match="lock timeout"):
        recover(lease.queue_id, lease.fence, patience=0.01)
