"""What becomes of a queue whose worker died: one claimed request is counted, several are run again one by one."""

import threading
from datetime import timedelta
from typing import Any

import pytest
from django.db import OperationalError, connection
from django.utils import timezone

from accounts.models import User
from processing.dispatch import dead_leases
from processing.dispatch.dispatcher import Dispatcher
from processing.handlers import HandlerRequest
from processing.worker import recorder
from project.redis import RedisUnavailable
from queues.exceptions import FencedOut
from queues.lifecycle import outbox
from queues.lifecycle.lease import WORKERS, Lease
from queues.lifecycle.outbox import Shard
from queues.lifecycle.recovery import recover
from queues.models import Attempt, Request, UserQueue
from queues.notify import workers
from queues.states import QueueState, Status
from queues.values import Outcome
from tests.processing import kinds
from tests.processing.crew import Hand, new_user, queue_of, requests_of, statuses_of, submit
from tests.waiting import until

pytestmark = pytest.mark.usefixtures("declared_kinds")

ALL = Shard(0, 1)


def leased(user: User, count: int = 1, claim: int = 1, kind: str = "test.script", worker_id: int = 1) -> Lease:
    """A lease on the user's queue with so many requests, of which so many are claimed."""
    submit(user, *["anything"] * count, kind=kind)
    outbox.mark_published(outbox.unpublished(ALL, 0, 100))
    lease = Lease.take(queue_of(user).id, worker_id)
    assert lease is not None
    lease.record(0, [], QueueState.DRAINING, claim)
    return lease


def outcomes(user: User) -> list[str]:
    return list(Attempt.objects.filter(request__queue__user=user).order_by("id").values_list("outcome", flat=True))


def test_one_claimed_request_was_running_so_its_attempt_counts() -> None:
    user = new_user()
    lease = leased(user, count=3)
    assert recover(lease.queue_id, lease.fence), "it wants a token"
    queue = queue_of(user)
    assert (queue.state, queue.done_seq, queue.crash_recovery_until_seq) == ("ready", 0, 1)
    assert (statuses_of(user), outcomes(user)) == (["retrying", "queued", "queued"], ["lost"])
    assert requests_of(user)[0].error["type"] == "WorkerLost"


def test_of_several_claimed_ones_none_is_counted_and_each_is_run_by_itself() -> None:
    user = new_user()
    lease = leased(user, count=8, claim=5)
    assert recover(lease.queue_id, lease.fence)
    assert (outcomes(user), set(statuses_of(user))) == ([], {"queued"})
    assert queue_of(user).crash_recovery_until_seq == 5
    again = Lease.take(lease.queue_id, 2)
    assert again is not None
    assert again.careful


def test_who_kills_a_second_worker_waits_and_after_the_last_attempt_it_has_failed() -> None:
    user = new_user()
    lease = leased(user, count=2)
    recover(lease.queue_id, lease.fence)
    for attempt in (2, 3):
        second = Lease.take(lease.queue_id, 2)
        assert second is not None
        second.record(0, [], QueueState.DRAINING, 1)
        wants_token = recover(second.queue_id, second.fence)
        if attempt == 2:
            assert not wants_token
            assert queue_of(user).state == "waiting", "others' requests come first for a while"
            UserQueue.objects.filter(user=user).update(wake_at=timezone.now() - timedelta(seconds=1))
            assert outbox.wake(ALL, 10) == [lease.queue_id]
    assert wants_token
    assert (statuses_of(user), outcomes(user)) == (["failed", "queued"], ["lost"] * 3)
    assert queue_of(user).done_seq == 1


@pytest.mark.parametrize(
    ("kind", "failed_before", "counted"), [("test.script", 2, False), ("test.script", 1, True), ("test.once", 0, True)]
)
def test_the_first_crash_takes_no_requests_last_attempt_of_several(
    kind: str, failed_before: int, counted: bool
) -> None:
    """What ran beside it may have ended the worker, and its attempts before ended otherwise."""
    user = new_user()
    lease = leased(user, kind=kind)
    Request.objects.filter(queue=lease.queue_id).update(attempt=failed_before)
    recover(lease.queue_id, lease.fence)
    assert outcomes(user) == ["lost"] * counted
    if not counted:
        second = Lease.take(lease.queue_id, 2)
        assert second is not None
        assert second.last_chance, "it has one more, alone"
        second.record(0, [], QueueState.DRAINING, 1)
        recover(second.queue_id, second.fence)
        assert (outcomes(user), statuses_of(user)) == (["lost"], ["failed"])


def test_after_a_crash_a_lease_that_claims_nothing_yet_costs_no_attempt() -> None:
    user = new_user()
    lease = leased(user)
    recover(lease.queue_id, lease.fence)
    second = Lease.take(lease.queue_id, 2)
    assert second is not None
    assert recover(second.queue_id, second.fence)
    assert outcomes(user) == ["lost"]


def test_a_lease_can_be_left_to_one_other_holder() -> None:
    user = new_user()
    lease = leased(user)
    assert Lease.take(lease.queue_id, 2) is None
    assert Lease.take(lease.queue_id, 2, left=lease.fence - 1) is None
    heir = Lease.take(lease.queue_id, 2, left=lease.fence)
    assert heir is not None
    assert Lease.take(lease.queue_id, 3, left=lease.fence) is None
    with pytest.raises(FencedOut):
        lease.record(0, [], QueueState.READY)
    heir.record(0, [], QueueState.READY)


def test_the_last_request_of_a_queue_that_is_lost_for_good_leaves_it_idle() -> None:
    user = new_user()
    lease = leased(user, kind="test.once")
    assert not recover(lease.queue_id, lease.fence)
    assert (queue_of(user).state, statuses_of(user)) == ("idle", ["failed"])


def test_a_blocking_kind_blocks_when_its_worker_was_lost_for_the_last_time() -> None:
    user = new_user()
    lease = leased(user, count=2, kind="test.block")
    assert not recover(lease.queue_id, lease.fence)
    assert (queue_of(user).state, statuses_of(user)) == ("blocked", ["retrying", "queued"])


def test_a_lease_is_taken_away_once_and_its_holder_writes_nothing_more() -> None:
    user = new_user()
    lease = leased(user, count=2)
    assert recover(lease.queue_id, lease.fence)
    assert not recover(lease.queue_id, lease.fence)
    outcome = Outcome(1, Status.SUCCEEDED, 1, finished_at=timezone.now())
    with pytest.raises(FencedOut):
        lease.record(1, [outcome], QueueState.DRAINING, 1)
    with pytest.raises(FencedOut):
        lease.renew(1)
    assert not lease.republish()
    successor = Lease.take(lease.queue_id, 2)
    assert successor is not None
    with pytest.raises(FencedOut):
        lease.record(1, [outcome], QueueState.DRAINING, 1)
    assert (queue_of(user).done_seq, outcomes(user)) == (0, ["lost"])


def test_a_lease_ends_when_it_runs_out_or_its_holders_lock_is_free() -> None:
    alive, dead, silent = new_user(), new_user(), new_user()
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_lock(%s, 11)", [WORKERS])
    leases = [leased(user, worker_id=worker_id) for user, worker_id in ((alive, 11), (dead, 12), (silent, 11))]
    UserQueue.objects.filter(user=silent).update(lease_until=timezone.now() - timedelta(seconds=1))
    found = {lease.queue_id: lease.expired for lease in outbox.dead_leases(ALL, WORKERS, 10)}
    assert found == {leases[1].queue_id: False, leases[2].queue_id: True}
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_unlock_all()")


def test_a_lock_that_is_free_for_a_moment_counts_for_nothing(hand: Hand) -> None:
    """A worker whose connection broke takes its lock again within a quarter of a second."""
    user = new_user()
    lease = leased(user, worker_id=12)
    hand.dispatcher.end_dead_leases()
    assert queue_of(user).fence == lease.fence

    def taken_away() -> bool:
        hand.dispatcher.end_dead_leases()
        return queue_of(user).fence == lease.fence + 1

    until(taken_away, 5, "a dead worker keeps its queue")


def test_a_worker_that_lost_postgresql_alone_keeps_its_lease_to_the_end(
    hand: Hand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its handlers go on: another one's would run beside them."""
    monkeypatch.setattr(dead_leases, "DEAD_SECONDS", 0)
    user = new_user()
    lease = leased(user, worker_id=15)
    monkeypatch.setattr(workers, "SHOWN_SECONDS", 60)  # however busy the machine is
    workers.show(15)
    assert workers.may_live({15, 16}) == {15}
    hand.dispatcher.end_dead_leases()
    assert queue_of(user).fence == lease.fence
    UserQueue.objects.filter(user=user).update(lease_until=timezone.now() - timedelta(seconds=1))
    hand.dispatcher.end_dead_leases()
    assert queue_of(user).fence == lease.fence + 1


def test_where_redis_is_away_a_lease_ends_with_its_time(hand: Hand, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: Any) -> None:
        raise RedisUnavailable

    monkeypatch.setattr(dead_leases, "DEAD_SECONDS", 0)
    monkeypatch.setattr(workers, "call", away)
    user = new_user()
    lease = leased(user, worker_id=14)
    hand.dispatcher.end_dead_leases()
    assert queue_of(user).fence == lease.fence
    monkeypatch.undo()
    monkeypatch.setattr(dead_leases, "DEAD_SECONDS", 0)
    hand.dispatcher.end_dead_leases()
    assert queue_of(user).fence == lease.fence + 1


def test_a_dispatcher_that_lost_postgresql_lets_others_come_back_first(
    hand: Hand,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """PostgreSQL may have ended everybody's connection, and with it the locks of workers that live."""
    monkeypatch.setattr(dead_leases, "DEAD_SECONDS", 0.01)
    monkeypatch.setattr(dead_leases, "SETTLED_SECONDS", 1000)
    user = new_user()
    leased(user, worker_id=12)
    losses = [OperationalError("as asked for")]
    fences: list[int] = []
    real = Dispatcher.end_dead_leases

    def end_dead_leases(self: Dispatcher) -> None:
        if losses:
            raise losses.pop()
        real(self)
        fences.append(queue_of(user).fence)

    monkeypatch.setattr(Dispatcher, "end_dead_leases", end_dead_leases)
    stop = threading.Event()
    thread = threading.Thread(target=hand.dispatcher.run, args=(stop,))
    thread.start()
    try:
        until(lambda: len(fences) >= 3, 10)
        assert set(fences) == {1}, "its lock is free, and that is not believed yet"
        monkeypatch.setattr(dead_leases, "SETTLED_SECONDS", 0)
        until(lambda: fences[-1] == 2, 10)
    finally:
        stop.set()
        thread.join(10)


def test_after_a_crash_one_request_is_claimed_at_a_time(hand: Hand) -> None:
    claimed: list[tuple[int, int, int]] = []

    def note(request: HandlerRequest) -> None:
        queue = queue_of(user)
        claimed.append((request.sequence, queue.claimed, queue.done_seq))

    user = new_user()
    lease = leased(user, count=30, claim=6)
    kinds.SCRIPTS["anything"] = note
    recover(lease.queue_id, lease.fence)
    # The claim's messages were published by nobody: repaired on the way.
    hand.wire.put_token(lease.queue_id)
    hand.settle()
    assert claimed[:6] == [(n, 1, n - 1) for n in range(1, 7)], "one request, one commit"
    assert set(statuses_of(user)) == {"succeeded"}


def test_a_live_worker_keeps_its_lease_beyond_its_length(hand: Hand, monkeypatch: pytest.MonkeyPatch) -> None:
    from django.conf import settings

    monkeypatch.setattr(settings.ENV, "lease_seconds", 1)
    monkeypatch.setattr(recorder, "RENEW_SECONDS", 0.1)
    seen: list[int] = []

    def slow(request: HandlerRequest) -> int:
        first = queue_of(user).lease_until
        until(lambda: (lease_until := queue_of(user).lease_until) and first and lease_until > first, 5)
        hand.dispatcher.end_dead_leases()
        hand.dispatcher.end_dead_leases()
        seen.append(queue_of(user).fence)
        return request.attempt

    user = new_user()
    kinds.SCRIPTS["slow"] = slow
    submit(user, "slow")
    hand.settle()
    assert seen == [1]
    assert [r.result for r in requests_of(user)] == [1]
