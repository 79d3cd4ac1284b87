"""One turn of one user's queue: what it claims and receives, and when it ends."""

import threading
import time
from datetime import timedelta
from typing import Any

import pytest
from django.conf import settings
from django.db import connection
from django.utils import timezone

from processing.broker.fetcher import Fetcher
from processing.handlers import HandlerRequest
from processing.worker.drain import drain_queue
from processing.worker.shares import Shares
from processing.worker.token_run import TokenRun, WorkerProcess
from processing.worker.turn import Turn
from processing.worker.watchdog import Watchdog
from queues.lifecycle import control
from queues.lifecycle import lease as leases
from queues.lifecycle.lease import Lease
from queues.models import UserQueue
from tests.processing.conftest import Script
from tests.processing.crew import Hand, new_user, queue_of, requests_of, statuses_of, submit
from tests.waiting import until


def test_a_request_that_was_cancelled_or_expired_before_its_turn_is_not_run(hand: Hand, script: Script) -> None:
    ran = []

    @script
    def note(request: HandlerRequest) -> None:
        ran.append(request.sequence)

    user = new_user()
    submit(user, "note", "note")
    submit(user, "note", expires_at=timezone.now() - timedelta(seconds=1))
    submit(user, "note")
    control.cancel(requests_of(user)[1].id)
    hand.settle()
    assert ran == [1, 4]
    assert statuses_of(user) == ["succeeded", "cancelled", "expired", "succeeded"]


def test_a_turn_ends_after_its_time_so_that_others_come_first(
    hand: Hand, script: Script, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings.ENV, "turn_seconds", 0.1)
    began = []

    @script
    def slow(request: HandlerRequest) -> None:
        time.sleep(0.03)

    @script
    def quiet(request: HandlerRequest) -> None:
        began.append(time.monotonic())

    alice, bob = new_user(), new_user()
    submit(alice, *["slow"] * 40)
    hand.dispatch()
    submit(bob, "quiet")
    hand.dispatch()
    sent = time.monotonic()
    hand.work()
    assert began[0] - sent < 0.1 + 0.03 + 0.3, "bob waited for more than one of alice's turns"
    assert queue_of(alice).done_seq >= 1
    hand.settle()


@pytest.mark.usefixtures("fine")
def test_a_turn_ends_after_so_many_requests(hand: Hand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings.ENV, "turn_requests", 10)
    user = new_user()
    submit(user, *["fine"] * 25)
    hand.dispatch()
    assert hand.work(turns=1) == 1
    assert queue_of(user).done_seq == 10
    until(lambda: hand.wire.tokens() == 1, 5, "the token did not go to the tail")
    hand.settle()
    assert queue_of(user).fence == 3


def test_a_paused_queue_starts_nothing_and_goes_on_when_resumed(hand: Hand, script: Script) -> None:
    ran = []

    @script
    def note(request: HandlerRequest) -> None:
        ran.append(request.sequence)
        if request.sequence == 2:
            UserQueue.objects.filter(user=user).update(paused=True)

    user = new_user()
    submit(user, *["note"] * 400)
    hand.dispatch()
    hand.work()
    stopped_at = len(ran)
    assert stopped_at < 400, "what was claimed together may be finished together, no more"
    hand.wire.put_token(queue_of(user).id)
    hand.work()
    assert len(ran) == stopped_at, "a token does not start it"
    submit(user, "note")
    hand.dispatch()
    hand.work()
    assert len(ran) == stopped_at
    control.resume(queue_of(user).id)
    hand.settle()
    assert ran == list(range(1, 402))


def test_only_one_of_many_tokens_gives_a_turn(hand: Hand, script: Script) -> None:
    running, most = threading.Semaphore(0), []
    lock = threading.Lock()
    count = 0

    @script
    def alone(request: HandlerRequest) -> None:
        nonlocal count
        with lock:
            count += 1
            most.append(count)
        time.sleep(0.01)
        with lock:
            count -= 1

    user = new_user()
    submit(user, *["alone"] * 10)
    hand.dispatch()
    queue_id = queue_of(user).id
    threads = [threading.Thread(target=lambda: elsewhere_drain(queue_id)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    hand.settle()
    assert most == [1] * 10
    del running


def elsewhere_drain(queue_id: int) -> None:
    from tests.processing.crew import forget_reader

    try:
        drain_queue(queue_id)
    finally:
        forget_reader()
        connection.close()


@pytest.mark.usefixtures("fine")
def test_claims_grow_while_handlers_are_fast_however_slow_rabbitmq_is(
    hand: Hand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a busy machine everything takes long; to record one by one then would make it busier still."""

    monkeypatch.setattr(settings.ENV, "turn_seconds", 60)
    user = new_user()
    submit(user, *["fine"] * 60)
    hand.dispatch()
    sizes: list[int] = []
    next_size, has_message = Turn._next_size, Turn._has_message

    def noted(turn: Turn) -> int:
        sizes.append(next_size(turn))
        return sizes[-1]

    def slowly(turn: Turn, seq: int) -> bool:
        time.sleep(0.006)  # RabbitMQ's share of a request; handlers that took so long would not be fast
        return has_message(turn, seq)

    monkeypatch.setattr(Turn, "_next_size", noted)
    monkeypatch.setattr(Turn, "_has_message", slowly)
    hand.work(1)
    assert queue_of(user).done_seq == 60
    assert max(sizes) > 16, sizes


@pytest.mark.parametrize(("milliseconds", "size"), [(1, 60), (8, 3), (20.2, 2), (30, 1)])
def test_as_many_are_claimed_as_are_over_before_the_first_is_to_be_recorded(
    hand: Hand, milliseconds: float, size: int
) -> None:
    user = new_user()
    submit(user, "fine")
    hand.dispatch()
    lease = Lease.take(queue_of(user).id, 1)
    assert lease is not None
    turn = Turn(TokenRun(WorkerProcess(Watchdog(), Shares()), Fetcher(), []), lease, 64)
    turn.ran = turn.recording.passed = 4
    turn.handling = 4 * milliseconds / 1000
    assert turn._next_size() == size
    lease.crash_recovery_until_seq = 1
    assert turn._next_size() == 1, "a worker died here"


@pytest.mark.usefixtures("fine")
def test_of_an_atomic_kind_one_is_claimed_at_a_time(hand: Hand, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is claimed beside it would be read, and given up as soon as it begins."""
    sizes: list[int] = []
    next_size = Turn._next_size

    def noted(turn: Turn) -> int:
        sizes.append(next_size(turn))
        return sizes[-1]

    monkeypatch.setattr(Turn, "_next_size", noted)
    user = new_user()
    submit(user, *["fine"] * 5, kind="test.atomic")
    hand.settle()
    assert statuses_of(user) == ["succeeded"] * 5
    assert set(sizes) == {1}


def test_requests_begin_one_after_another_however_late_the_answer_to_the_lease_was(
    hand: Hand, fine: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    take = leases.take_together

    def late(*values: Any) -> Any:
        taken, left_out = take(*values)
        for lease in taken:
            lease.received += 0.5  # as if the answer had been so long on its way
        return taken, left_out

    monkeypatch.setattr(leases, "take_together", late)
    user = new_user()
    submit(user, *["fine"] * 20)
    hand.settle()
    began = [request.started_at for request in requests_of(user)]
    assert began == sorted(began)
