"""What is held back by its kind can be given up, controlled and let go, and costs nobody else anything."""

import random
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import pytest
from django.conf import settings
from django.db import OperationalError, connection
from django.utils import timezone

from processing.handlers import HandlerRequest
from queues.exceptions import NoSuch, NotPossible
from queues.kinds import Rate
from queues.lifecycle import control, permits
from queues.lifecycle.permits import HELD_SECONDS, take
from queues.limits import deployment
from queues.models import KindLimit, Permit, Request, UserQueue
from queues.sql.permits import TAKE
from queues.states import QueueState
from tests.processing.conftest import Script
from tests.processing.crew import Crew, Hand, all_done, new_user, queue_of, requests_of, statuses_of, submit
from tests.processing.frozen import frozen
from tests.processing.kind_limits.conftest import FEW, FREE, TWO, Counted, asks, held, lease_user, leased
from tests.queues.threads import at_once, holding, in_thread
from tests.waiting import until

PERMITS = "SELECT FROM queues_permit WHERE queue_id = ANY (%s) FOR UPDATE"


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


def test_whose_permit_is_locked_keeps_nobody_else_waiting(hand: Hand, counted: Counted) -> None:
    counted.go_on.set()
    stuck, expires, other = held(hand), held(hand), held(hand)
    Request.objects.filter(queue=queue_of(expires)).update(expires_at=timezone.now())
    with frozen(PERMITS, [queue_of(user).id for user in (stuck, expires)]):
        hand.dispatcher.sweeper.step()
        assert statuses_of(expires) == ["expired"]
        deployment.resume(TWO)
        until(lambda: [hand.dispatch(), hand.work()] and statuses_of(other) == ["succeeded"], 2)
        assert statuses_of(stuck) == ["queued"]
    hand.settle()
    assert statuses_of(stuck) == ["succeeded"]
    hand.dispatcher.calls._dropped = 0.0
    until(lambda: hand.dispatcher.calls.call() or not Permit.objects.filter(fence=None).exists(), 10)


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


def test_a_permit_waits_for_nobody_whose_owner_paused(hand: Hand, counted: Counted) -> None:
    counted.go_on.set()
    paused = [held(hand, kind=FEW) for _ in range(5)]
    last = held(hand, kind=FEW)
    for user in paused:
        control.pause(queue_of(user).id)
    deployment.set_limits(FEW, max_concurrency=1)
    deployment.resume(FEW)
    assert hand.dispatcher.calls.call(), "one look passes them"
    hand.dispatcher.calls.call()
    assert [one.queue_id for one in Permit.objects.filter(called_at__isnull=False)] == [queue_of(last).id]
    assert Permit.objects.count() == 1


def test_what_users_and_operators_do_at_once_deadlocks_with_nobody(hand: Hand, counted: Counted) -> None:
    counted.go_on.set()
    users = [new_user() for _ in range(10)]
    for n, user in enumerate(users):
        submit(user, *range(6), kind=TWO if n % 2 else FEW)
        submit(user, *range(6), kind=FEW if n % 2 else TWO)
    deployment.set_limits(FEW, rate=Rate(50, 1), max_concurrency=3)

    def meddle(n: int) -> None:
        dice = random.Random(n)
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
        until(all_done, 60, "nobody waits for ever")
    for user in users:
        assert {request.status for request in requests_of(user)} <= {"succeeded", "cancelled"}
        assert {request.attempt for request in requests_of(user)} <= {0, 1}


def test_a_permit_that_cannot_be_asked_for_has_nothing_run_again_that_is_over(
    hand: Hand, counted: Counted, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PostgreSQL goes away between two requests: what the first one did waits for it in the worker."""
    ran: list[int] = []

    @script
    def note(request: HandlerRequest) -> None:
        ran.append(request.sequence)

    def lost(**values: Any) -> Any:
        monkeypatch.setattr(permits, "TAKE", TAKE)
        connection.close()
        raise OperationalError("the connection was lost")

    monkeypatch.setattr(permits, "TAKE", SimpleNamespace(row=lost))
    monkeypatch.setattr(settings.ENV, "record_after_ms", 10_000)
    user = new_user()
    counted.go_on.set()
    submit(user, "note", "note", "note")  # the first is claimed alone
    submit(user, 1, kind=TWO)
    hand.settle()
    assert ran == [1, 2, 3]
    assert [request.attempt for request in requests_of(user)] == [1] * 4
