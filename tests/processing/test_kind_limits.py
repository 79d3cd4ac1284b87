"""Limits of a kind hold across all workers and users, exactly; who waited longest goes first; nobody else pays."""

import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone

from processing import handlers
from processing.handlers import HandlerRequest
from queues.exceptions import FencedOut, NoSuch, NotPossible
from queues.kinds import Rate
from queues.lifecycle import control
from queues.lifecycle.lease import Lease
from queues.lifecycle.permits import HELD_SECONDS, take
from queues.limits import deployment
from queues.models import KindLimit, Permit, UserQueue
from queues.states import QueueState
from tests.processing import kinds as test_kinds
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
    until,
)
from tests.queues.threads import at_once, holding, in_thread

TWO, FEW, FREE = "test.two", "test.few", "test.script"


class Counted:
    """What the limited handlers note: how many run, the most that ever did, who began and when."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.running = self.most = 0
        self.began: list[tuple[Any, int, float]] = []
        self.go_on = threading.Event()
        self.seconds = 0.0
        self.fails: deque[bool] = deque()

    def __call__(self, request: HandlerRequest, payload: Any) -> int:
        with self.lock:
            self.running += 1
            self.most = max(self.most, self.running)
            self.began.append((request.user_id, request.sequence, time.monotonic()))
        try:
            assert self.go_on.wait(20)
            time.sleep(self.seconds)
            if self.fails and self.fails.popleft():
                raise RuntimeError("as asked for")
        finally:
            with self.lock:
                self.running -= 1
        return 1


@pytest.fixture
def counted(transactional_db: None) -> Iterator[Counted]:
    counted = Counted()

    def run(request: HandlerRequest, payload: Any) -> int:
        return counted(request, payload)

    with test_kinds.kept():
        handlers.handler(TWO, max_concurrency=2, backoff=0.02, backoff_cap=0.1)(run)
        handlers.handler(FEW, rate="3/s")(run)
        deployment.declare()
        yield counted
        counted.go_on.set()


@pytest.fixture(autouse=True)
def _no_sweeps(hand: Hand, monkeypatch: pytest.MonkeyPatch) -> None:
    """The leases of a test's own have no living worker."""
    monkeypatch.setattr(hand.dispatcher, "sweep", lambda: None)


def leased(hand: Hand, kind: str) -> Lease:
    """A queue whose head is of that kind, in the hands of a worker of the test's own."""
    user = new_user()
    submit(user, None, kind=kind)
    hand.dispatch()
    lease = Lease.take(queue_of(user).id, 1)
    assert lease is not None
    assert lease.head is not None
    assert lease.head.limited
    return lease


def asks(lease: Lease, kind: str = TWO, seq: int = 1) -> bool:
    return take(lease.queue_id, lease.fence, seq, kind) is None


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


def held(hand: Hand, count: int = 1, kind: str = TWO, **fields: Any) -> Any:
    """A user whose head is held back because the kind is paused."""
    deployment.pause(kind, "a test")
    user = new_user()
    submit(user, *range(count), kind=kind, **fields)
    hand.dispatch()
    hand.work()
    assert queue_of(user).held_back
    return user


def test_a_paused_kind_accepts_and_begins_nothing_until_it_is_resumed(hand: Hand, counted: Counted) -> None:
    counted.go_on.set()
    user = held(hand, 2)
    (row,) = [one for one in deployment.at_work() if one.kind == TWO]
    assert (row.paused, row.waiting, row.running) == (True, 1, 0)
    assert row.waits_seconds is not None
    hand.dispatch()
    assert hand.work() == 0, "nobody looks at it again"
    assert {request.attempt for request in requests_of(user)} == {0}
    deployment.resume(TWO)
    hand.settle()
    assert statuses_of(user) == ["succeeded"] * 2


@pytest.mark.parametrize("how", ["cancel", "expire", "purge", "owner pauses"])
def test_what_is_held_back_can_be_given_up(hand: Hand, counted: Counted, how: str) -> None:
    counted.go_on.set()
    user = held(hand, 2)
    head, _ = requests_of(user)
    queue_id = queue_of(user).id
    if how == "cancel":
        control.cancel(head.id)
    elif how == "purge":
        assert control.purge(queue_id) == 2
    elif how == "expire":
        type(head).objects.filter(id=head.id).update(expires_at=timezone.now())
        assert hand.dispatcher.sweeper.step() is not None
    else:
        control.pause(queue_id)
        deployment.resume(TWO)
        hand.dispatch()
        assert hand.work() == 0
        assert not Permit.objects.filter(queue_id=queue_id).exists(), "it stands in nobody's way"
        control.resume(queue_id)
    if how in ("cancel", "expire", "purge"):
        assert not Permit.objects.filter(queue_id=queue_id, seq=1).exists()
    deployment.resume(TWO)
    hand.settle()
    given_up = {"cancel": "cancelled", "expire": "expired", "purge": "cancelled", "owner pauses": "succeeded"}[how]
    assert statuses_of(user) == [given_up, "cancelled" if how == "purge" else "succeeded"]


def test_a_cancel_while_its_queue_is_set_aside_is_not_forgotten(hand: Hand, counted: Counted) -> None:
    deployment.pause(TWO, "a test")
    lease = leased(hand, TWO)
    request = requests_of(UserQueue.objects.get(id=lease.queue_id).user)[0]
    assert not asks(lease)
    control.cancel(request.id)  # it counts as running still
    lease.record(0, [], QueueState.WAITING, delay=HELD_SECONDS)
    hand.dispatcher.calls._dropped = 0.0
    hand.settle()
    assert statuses_of(lease_user(lease)) == ["cancelled"]


def lease_user(lease: Lease) -> Any:
    return UserQueue.objects.get(id=lease.queue_id).user


def test_a_limit_below_what_runs_lets_nothing_in_until_fewer_run(hand: Hand, counted: Counted) -> None:
    running = [leased(hand, TWO) for _ in range(2)]
    assert all(asks(lease) for lease in running)
    deployment.set_limits(TWO, max_concurrency=1)
    third = leased(hand, TWO)
    assert not asks(third)
    running[0].record(0, [], QueueState.WAITING, delay=60)
    assert not asks(third), "one still runs"
    running[1].record(0, [], QueueState.WAITING, delay=60)
    assert asks(third)


def test_a_kind_that_gets_its_first_limit_counts_what_runs_already(hand: Hand, script: Callable[..., Any]) -> None:
    free = threading.Event()

    @script
    def slow(request: HandlerRequest) -> int:
        assert free.wait(20)
        return 1

    users = [new_user() for _ in range(3)]
    with Crew(workers=3):
        for user in users[:2]:
            submit(user, "slow")
        until(lambda: [queue_of(user).state for user in users[:2]] == ["draining"] * 2)
        deployment.set_limits(FREE, max_concurrency=2)
        submit(users[2], "slow")
        until(lambda: queue_of(users[2]).held_back)
        free.set()
        until(all_done, 20)
    assert [statuses_of(user) for user in users] == [["succeeded"]] * 3


def test_a_limit_of_the_deployment_comes_before_the_declared_one_and_can_be_taken_back(counted: Counted) -> None:
    def now() -> tuple[Any, Any]:
        (row,) = [one for one in deployment.at_work() if one.kind == TWO]
        return row.max_concurrency, row.rate

    assert now() == (2, None)
    deployment.set_limits(TWO, max_concurrency=7, rate=Rate(5, 60))
    assert now() == (7, Rate(5, 60))
    deployment.declare()
    assert now() == (7, Rate(5, 60)), "a worker that starts changes nothing of it"
    deployment.set_limits(TWO, max_concurrency=0, rate=0)
    assert now() == (None, None)
    deployment.set_limits(TWO, max_concurrency=None, rate=None)
    assert now() == (2, None)
    with pytest.raises(NoSuch, match="There is no kind 'nothing'"):
        deployment.pause("nothing", "")


def test_what_waits_goes_on_when_its_kinds_limit_is_lifted_or_its_handler_is_gone(hand: Hand, counted: Counted) -> None:
    counted.go_on.set()
    user = held(hand, 2)
    deployment.set_limits(TWO, max_concurrency=0)
    deployment.resume(TWO)
    hand.settle()
    assert statuses_of(user) == ["succeeded"] * 2
    other = held(hand, 1)
    KindLimit.objects.filter(kind=TWO).delete()  # by hand: nobody calls it any more
    Permit.objects.all().delete()
    hand.dispatcher.calls._repaired = 0.0
    hand.settle()
    assert statuses_of(other) == ["succeeded"]


def test_whoever_locks_a_kind_or_a_queue_keeps_nobody_else_waiting(hand: Hand, counted: Counted) -> None:
    lease = leased(hand, TWO)
    with holding("SELECT FROM queues_kindlimit WHERE kind = %s FOR UPDATE", TWO):
        began = time.monotonic()
        answer = in_thread(lambda: take(lease.queue_id, lease.fence, 1, TWO))()
        assert answer is not None
        assert 0 < answer < 1, "it asks again soon"
        assert time.monotonic() - began < 2
    assert asks(lease)
    user, other = held(hand), held(hand)
    deployment.resume(TWO)
    lease.record(0, [], QueueState.WAITING, delay=HELD_SECONDS)
    counted.go_on.set()
    with Crew():
        with holding("SELECT FROM queues_userqueue WHERE user_id = %s FOR UPDATE", user.id):
            until(
                lambda: in_thread(lambda: statuses_of(other))() == ["succeeded"], 10, "one locked row holds up others"
            )
        until(lambda: statuses_of(user) == ["succeeded"])


def test_a_paused_kind_costs_no_look_at_those_who_wait_for_it(hand: Hand, counted: Counted) -> None:
    """However many: the dispatcher asks for kinds that are not paused, and stops at the first place in line."""
    deployment.pause(TWO, "a test")
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO queues_permit (queue_id, kind, seq) SELECT n, %s, 1 FROM generate_series(1000000, 1100000) n",
            [TWO],
        )
        cursor.execute("ANALYZE queues_permit")
    hand.dispatcher.calls.call()
    began = time.monotonic()
    for _ in range(20):
        hand.dispatcher.calls.call()
    assert (time.monotonic() - began) / 20 < 0.02
    deployment.resume(TWO)
    until(lambda: not hand.dispatcher.calls.call() and not Permit.objects.exists(), 30)  # their queues are gone


def test_what_users_and_operators_do_at_once_deadlocks_with_nobody(hand: Hand, counted: Counted) -> None:
    counted.go_on.set()
    users = [new_user() for _ in range(10)]
    for n, user in enumerate(users):
        submit(user, *range(6), kind=TWO if n % 2 else FEW)
        submit(user, *range(6), kind=FEW if n % 2 else TWO)
    deployment.set_limits(FEW, rate=Rate(50, 1), max_concurrency=3)

    def meddle(n: int) -> None:
        dice = random.Random(n)  # noqa: S311
        end = time.monotonic() + 4
        while time.monotonic() < end:
            user, kind = dice.choice(users), dice.choice([TWO, FEW])
            what = dice.randrange(6)
            if what == 0:
                request = dice.choice(requests_of(user))
                with suppress(NotPossible):
                    control.cancel(request.id)
            elif what == 1:
                deployment.pause(kind, "a test")
            elif what == 2:
                deployment.resume(kind)
            elif what == 3:
                deployment.set_limits(kind, max_concurrency=dice.choice([0, 1, 2, None]))
            elif what == 4:
                control.pause(queue_of(user).id)
            else:
                control.resume(queue_of(user).id)
            time.sleep(0.02)

    with Crew(workers=4, dispatchers=2):
        at_once(4, meddle)
        for kind in (TWO, FEW):
            deployment.resume(kind)
        for user in users:
            control.resume(queue_of(user).id)
        until(all_done, 60, "somebody waits for ever")
    for user in users:
        assert {request.status for request in requests_of(user)} <= {"succeeded", "cancelled"}
        assert {request.attempt for request in requests_of(user)} <= {0, 1}
