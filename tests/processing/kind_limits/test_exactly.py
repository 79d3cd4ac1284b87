"""Limits of a kind hold across all workers and users, exactly; who waited longest goes first."""

from collections.abc import Callable

import pytest
from django.db import connection

from project import redis
from queues.exceptions import FencedOut
from queues.lifecycle.lease import Lease
from queues.lifecycle.permits import HELD_SECONDS
from queues.models import Permit, UserQueue
from queues.states import QueueState
from scripts.place import free_port
from tests.processing.crew import (
    Crew,
    Hand,
    all_done,
    attempts_of,
    new_user,
    queue_of,
    requests_of,
    statuses_of,
    submit,
)
from tests.processing.kind_limits.conftest import FEW, TWO, Counted, asks, leased
from tests.queues.threads import at_once
from tests.waiting import until


def test_never_more_run_at_once_than_may_and_all_run_in_the_end(hand: Hand, counted: Counted) -> None:
    counted.seconds = 0.01
    counted.go_on.set()
    users = [new_user() for _ in range(12)]
    for user in users:
        submit(user, 1, 2, 3, kind=TWO)
    with Crew(workers=5, dispatchers=2):
        until(all_done, 40)
    assert counted.most == 2
    assert [statuses_of(user) for user in users] == [["succeeded"] * 3] * 12
    for user in users:
        assert [seq for who, seq, _ in counted.began if who == user.id] == [1, 2, 3], "first in, first out, once each"
        assert {request.attempt for request in requests_of(user)} == {1}, "no attempt was counted"


def test_never_more_begin_in_any_window_than_the_rate_says(hand: Hand, counted: Counted) -> None:
    counted.go_on.set()
    users = [new_user() for _ in range(5)]
    for user in users:
        submit(user, 1, 2, kind=FEW)
    with Crew(workers=4):
        until(all_done, 30)
    with connection.cursor() as cursor:
        cursor.execute("SELECT extract(epoch FROM at)::float8 FROM queues_kindstart ORDER BY n")
        given = [at for (at,) in cursor.fetchall()]
    began = [at for _, _, at in counted.began]
    assert len(began) == 10
    assert all(later - earlier >= 1 for earlier, later in zip(given, given[3:], strict=False))
    assert began[-1] - began[0] >= 2.9, "ten at three a second"
    assert began[-1] - began[0] < 8, "and not much later"


def test_without_redis_limits_hold_and_who_waits_is_woken(
    hand: Hand, counted: Counted, another_redis: Callable[[str], None]
) -> None:
    another_redis(f"redis://127.0.0.1:{free_port()}")
    with pytest.raises(redis.RedisUnavailable):
        redis.check_redis()
    users = [new_user() for _ in range(6)]
    for user in users:
        submit(user, 1, 2, kind=TWO)
    with Crew(workers=4, dispatchers=2):
        until(lambda: counted.running == 2 and sum(queue_of(user).held_back for user in users) == 4)
        counted.go_on.set()
        until(all_done, 30, "nobody wakes those who wait")
    assert counted.most == 2
    for user in users:
        assert [seq for who, seq, _ in counted.began if who == user.id] == [1, 2]
        assert {request.attempt for request in requests_of(user)} == {1}


def test_of_many_who_ask_at_the_same_moment_as_many_are_let_in_as_may(hand: Hand, counted: Counted) -> None:
    for _ in range(5):
        leases = [leased(hand, TWO) for _ in range(8)]
        let_in = at_once(8, lambda n, leases=leases: asks(leases[n]))
        assert sum(let_in) == 2
        for lease in leases:
            lease.record(0, [], QueueState.WAITING, delay=HELD_SECONDS)
        Permit.objects.all().delete()


def test_who_waited_longest_goes_first_and_no_newcomer_before_them(hand: Hand, counted: Counted) -> None:
    first = [leased(hand, TWO) for _ in range(2)]
    assert all(asks(lease) for lease in first)
    users = [new_user() for _ in range(4)]
    for user in users:
        submit(user, None, kind=TWO)
        hand.dispatch()
        hand.work()  # one after another they come too late
        assert queue_of(user).held_back
    first[0].record(0, [], QueueState.WAITING, delay=HELD_SECONDS)
    Permit.objects.filter(queue_id=first[0].queue_id).delete()
    newcomer = leased(hand, TWO)  # dispatching calls the first of those who wait, and keeps a permit for it
    assert not asks(newcomer)
    newcomer.record(0, [], QueueState.WAITING, delay=HELD_SECONDS)
    counted.go_on.set()

    def all_ran() -> bool:  # one at a time: the other permit is taken
        hand.dispatch()
        hand.work()
        return len(counted.began) == 5

    until(all_ran)
    assert [who for who, _, _ in counted.began] == [*(user.id for user in users), newcomer.user_id]


def test_a_head_that_is_held_back_holds_no_thread_and_no_other_kind(hand: Hand, counted: Counted, fine: None) -> None:
    waiting = [new_user() for _ in range(6)]
    for user in waiting:
        submit(user, None, kind=TWO)
    other = new_user()
    with Crew(workers=3):
        until(lambda: counted.running == 2)
        until(lambda: sum(queue_of(user).held_back for user in waiting) == 4)
        submit(other, "fine", "fine")
        until(lambda: statuses_of(other) == ["succeeded"] * 2, 10, "somebody else waits for a limit")
        assert requests_of(waiting[-1])[0].status_now in ("queued", "running")
        counted.go_on.set()
        until(all_done, 30)
    assert counted.most == 2


def test_a_permit_ends_with_its_lease_whatever_ends_that(hand: Hand, counted: Counted) -> None:
    for end in ("recovered", "given back", "waits", "erased"):
        one, other = leased(hand, TWO), leased(hand, TWO)
        assert asks(one)
        assert asks(other)
        third = leased(hand, TWO)
        assert not asks(third)
        queue = UserQueue.objects.filter(id=one.queue_id)
        if end == "recovered":
            from queues.lifecycle.recovery import recover

            assert recover(one.queue_id, one.fence)
        elif end == "given back":
            queue.update(state="ready", claimed=0)
        elif end == "waits":
            one.record(0, [], QueueState.WAITING, delay=60)
        else:
            queue.get().user.delete()
        assert asks(third), end
        with pytest.raises(FencedOut):
            asks(one)
        UserQueue.objects.all().delete()
        Permit.objects.all().delete()


def test_a_holder_who_lost_its_lease_takes_no_permit_and_spoils_none(hand: Hand, counted: Counted) -> None:
    stale = leased(hand, TWO)
    UserQueue.objects.filter(id=stale.queue_id).update(state="ready")
    newer = Lease.take(stale.queue_id, 2)
    assert newer is not None
    assert asks(newer)
    with pytest.raises(FencedOut):
        asks(stale)
    assert Permit.objects.get(queue_id=stale.queue_id).fence == newer.fence


def test_a_failed_attempt_asks_again_and_counts_once(hand: Hand, counted: Counted) -> None:
    counted.fails.extend([True, True])
    counted.go_on.set()
    user = new_user()
    submit(user, None, kind=TWO)
    hand.settle()
    assert [outcome for _, outcome in attempts_of(requests_of(user)[0])] == ["failed", "failed", "succeeded"]
