"""A process's leases are what it says they are, and no locked row holds up whoever looks after many."""

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import orjson
import pytest
from django.conf import settings
from django.db import OperationalError, connection, transaction
from django.db.models.functions import Now
from psycopg.errors import LockNotAvailable

from processing.broker import tokens
from processing.handlers import HandlerRequest
from processing.worker import drain, next_queues
from processing.worker.watchdog import Watchdog
from project.postgresql.limits import WATCH, of_role
from queues.exceptions import FencedOut
from queues.lifecycle import lease as leases
from queues.lifecycle.lease import Lease, renew
from queues.lifecycle.reconcile import YOUNG_SECONDS, reconcile
from queues.models import UserQueue
from queues.sql.protocol import LEASE_TOGETHER
from queues.states import QueueState
from tests.processing.conftest import Script
from tests.processing.crew import Hand, forget_reader, new_user, queue_of, requests_of, statuses_of, submit
from tests.waiting import until

MINE = 4711


def ready(hand: Hand) -> int:
    user = new_user()
    submit(user, "fine")
    hand.dispatch()
    return queue_of(user).id


def state(queue_id: int) -> tuple[str, int]:
    queue = UserQueue.objects.get(id=queue_id)
    return queue.state, queue.claimed


def work_until_idle(hand: Hand, queue_id: int) -> None:
    """With the tokens alone that are on their way: who sends one does not wait until it is there."""
    until(lambda: hand.work() >= 0 and state(queue_id)[0] == "idle")


@contextmanager
def locked(queue_id: int) -> Iterator[None]:
    """Somebody else's transaction has the row, and does not end."""
    has, end = threading.Event(), threading.Event()

    def hold() -> None:
        with transaction.atomic():
            UserQueue.objects.select_for_update().get(id=queue_id)
            has.set()
            end.wait(30)
        connection.close()

    thread = threading.Thread(target=hold)
    thread.start()
    assert has.wait(10)
    try:
        yield
    finally:
        end.set()
        thread.join(10)


def test_a_lease_whose_answer_was_lost_is_given_back_and_counts_no_attempt(hand: Hand, fine: None) -> None:
    queue_id = ready(hand)
    asked = orjson.dumps([{"id": queue_id}]).decode()
    assert LEASE_TOGETHER.row(asked=asked, worker_id=MINE, seconds=15).queue_id == queue_id
    began = time.monotonic()
    assert reconcile(MINE, set) == [], "its answer may be on its way"
    until(lambda: reconcile(MINE, set) == [queue_id], 10)
    print(f"given back after {time.monotonic() - began:.1f} s")
    assert state(queue_id) == ("ready", 0)
    drain.drain_queue(queue_id)
    assert [r.attempt for r in requests_of(UserQueue.objects.get(id=queue_id).user)] == [1]


def test_a_lease_that_is_known_or_anothers_is_kept(hand: Hand, fine: None) -> None:
    mine, anothers = Lease.take(ready(hand), MINE), Lease.take(ready(hand), MINE + 1)
    assert mine is not None
    assert anothers is not None
    UserQueue.objects.update(state_since=Now() - age(60))
    assert reconcile(MINE, lambda: {(mine.queue_id, mine.fence)}) == []
    assert state(mine.queue_id)[0] == state(anothers.queue_id)[0] == "draining"
    assert reconcile(MINE, lambda: {(mine.queue_id, mine.fence - 1)}) == [mine.queue_id]


def age(seconds: int) -> timedelta:
    return timedelta(seconds=seconds)


def test_who_takes_a_lease_while_others_are_compared_keeps_it(hand: Hand, fine: None) -> None:
    """What is known is asked for after PostgreSQL was: in between it may have become known."""
    queue_id = ready(hand)
    lease = Lease.take(queue_id, MINE)
    assert lease is not None
    UserQueue.objects.update(state_since=Now() - age(60))
    known: set[tuple[int, int]] = set()

    def asked() -> set[tuple[int, int]]:
        known.add((lease.queue_id, lease.fence))
        return known

    assert reconcile(MINE, asked) == []


def test_an_answer_that_comes_too_late_counts_as_refused(
    hand: Hand, fine: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert leases.ANSWER_SECONDS < YOUNG_SECONDS
    watch = Watchdog()
    lease = Lease.take(ready(hand), MINE)
    assert lease is not None
    assert watch.know(lease)
    lease.asked -= leases.ANSWER_SECONDS
    assert not watch.know(lease)
    assert watch._known == set(), "so that it is given back"


def test_renewing_waits_for_no_locked_row(hand: Hand, fine: None) -> None:
    stuck, other = Lease.take(ready(hand), MINE), Lease.take(ready(hand), MINE)
    assert stuck is not None
    assert other is not None
    gone = Lease.take(ready(hand), MINE)
    assert gone is not None
    gone.record(0, [], QueueState.READY)
    before = {queue.id: queue.lease_until for queue in UserQueue.objects.all()}
    with locked(stuck.queue_id):
        began = time.monotonic()
        renewed = renew([(lease.queue_id, lease.fence, 1) for lease in (stuck, other, gone)])
        assert time.monotonic() - began < 2
        assert set(renewed) == {stuck.queue_id, other.queue_id}, "a lock is no loss of the lease"
        with pytest.raises(FencedOut):
            renewed[gone.queue_id]
    after = {queue.id: queue.lease_until for queue in UserQueue.objects.all()}
    assert after[stuck.queue_id] == before[stuck.queue_id]
    assert after[other.queue_id] > before[other.queue_id]


def test_the_watch_records_nothing_it_would_have_to_wait_for(hand: Hand, fine: None) -> None:
    lease = Lease.take(ready(hand), MINE)
    assert lease is not None
    wrapper: Any = connection
    wrapper.wanted = WATCH
    try:
        with locked(lease.queue_id):
            began = time.monotonic()
            with pytest.raises(OperationalError) as refused:
                lease.record(0, [], QueueState.DRAINING, 1)
            assert isinstance(refused.value.__cause__, LockNotAvailable)
            assert time.monotonic() - began < 1
        lease.record(0, [], QueueState.DRAINING, 1)
    finally:
        wrapper.wanted = of_role()


def test_one_users_locked_row_costs_no_other_user_its_lease(
    hand: Hand, script: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The watch of the process goes on, and so do the bystander's renewals."""
    monkeypatch.setattr("django.conf.settings.ENV.lease_seconds", 2.0)
    running, release = threading.Barrier(3), threading.Event()

    @script
    def slow(request: HandlerRequest) -> None:
        running.wait(20)
        release.wait(20)

    users = [new_user(), new_user()]
    for user in users:
        submit(user, "slow")
    hand.dispatch()
    threads = [threading.Thread(target=drain_elsewhere, args=(queue_of(user).id,)) for user in users]
    for thread in threads:
        thread.start()
    running.wait(20)
    stuck, bystander = (queue_of(user).id for user in users)
    with locked(stuck):
        first = UserQueue.objects.get(id=bystander).lease_until
        until(lambda: (UserQueue.objects.get(id=bystander).lease_until or first) > first + age(3), 15)
        assert not UserQueue.objects.filter(id=bystander, lease_until__lt=Now()).exists()
    release.set()
    for thread in threads:
        thread.join(20)
    assert [r.attempt for r in requests_of(users[1])] == [1]


def drain_elsewhere(queue_id: int) -> None:
    try:
        drain.drain_queue(queue_id)
    finally:
        forget_reader()
        connection.close()


@pytest.mark.parametrize("failures", [1, 2])
def test_a_token_whose_turn_could_not_begin_is_tried_again_and_then_goes_back(
    hand: Hand, fine: None, monkeypatch: pytest.MonkeyPatch, failures: int
) -> None:
    queue_id = ready(hand)
    hand.wire.purge(tokens.TOKEN_QUEUE)
    left, take = iter(range(failures)), leases.take_together

    def failing(*values: Any) -> Any:
        for _ in left:
            raise OperationalError("the connection was lost")
        return take(*values)

    monkeypatch.setattr(leases, "take_together", failing)
    drain.drain_queue(queue_id)
    assert state(queue_id)[0] == ("idle" if failures == 1 else "ready")
    work_until_idle(hand, queue_id)
    assert [r.attempt for r in requests_of(UserQueue.objects.get(id=queue_id).user)] == [1]


def test_a_process_that_has_no_postgresql_passes_its_tokens_on_soon(
    hand: Hand, fine: None, watch: Watchdog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be alone in that: whoever waits for its queue would wait for it, not for a server."""
    queue_id = ready(hand)
    hand.wire.purge(tokens.TOKEN_QUEUE)
    waited: list[float] = []
    with monkeypatch.context() as away:
        away.setattr(Watchdog, "wait_until_known", lambda _, timeout: bool(waited.append(timeout)))
        drain.drain_queue(queue_id)
    assert waited == [next_queues.KNOWN_SECONDS]
    assert next_queues.KNOWN_SECONDS < 1
    work_until_idle(hand, queue_id)


def test_what_is_over_waits_for_postgresql_for_longer_than_a_lease(
    hand: Hand, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings.ENV, "lease_seconds", 0.3)
    record, tried = leases.record_together, itertools.count()
    ran: list[int] = []
    back: list[float] = []

    def away(records: Any) -> Any:
        if ran and (next(tried) < 3 or time.monotonic() < back[0]):
            raise OperationalError("the server is away")
        return record(records)

    @script
    def note(request: HandlerRequest) -> None:
        ran.append(request.attempt)
        back.append(time.monotonic() + 4 * settings.ENV.lease_seconds)

    monkeypatch.setattr(leases, "record_together", away)
    user = new_user()
    submit(user, "note")
    hand.settle()
    assert (ran, statuses_of(user)) == ([1], ["succeeded"])
