"""Bundles: one token for many queues."""

import threading
from collections.abc import Callable
from typing import Any

import pytest

from processing import broker, bundle, dispatcher, drain
from processing.bundle import Bundle
from processing.handlers import HandlerRequest
from tests.processing.crew import Hand, elsewhere, new_user, queue_of, statuses_of, submit, until

Script = Callable[..., Any]


def test_where_a_crowd_of_tokens_waits_all_who_wake_share_them(hand: Hand) -> None:
    def woken(count: int) -> int:
        """How many tokens their queues get."""
        for _ in range(count):
            submit(new_user(), "anything")
        before = hand.wire.tokens()
        hand.dispatch()
        return hand.wire.tokens() - before

    assert woken(8) == 8, "a token each, so that all workers have something to do"
    hand.wire.put_token(*[0] * dispatcher.CROWD_OF_TOKENS)
    hand.dispatcher.sweep()
    assert woken(dispatcher.LARGEST_BUNDLE + 1) == 2
    hand.wire.purge(broker.TOKEN_QUEUE)
    hand.dispatcher.sweep()
    assert woken(8) == 8


@pytest.mark.usefixtures("fine")
def test_a_defect_in_one_turn_of_a_bundle_costs_the_others_nothing(hand: Hand, monkeypatch: pytest.MonkeyPatch) -> None:
    users = [new_user() for _ in range(5)]
    for user in users:
        submit(user, "fine")
    hand.dispatch()
    hand.wire.purge(broker.TOKEN_QUEUE)
    unlucky = users[1]
    real = drain.Turn._run_claims

    def defective(turn: drain.Turn) -> None:
        if turn.lease.user_id == unlucky.id:
            raise ZeroDivisionError("a defect")
        real(turn)

    monkeypatch.setattr(drain.Turn, "_run_claims", defective)
    monkeypatch.setattr(Bundle, "pass_rest_on", lambda _: None)  # or a busy machine passes on what is to fail here
    with pytest.raises(ZeroDivisionError):
        Bundle([queue_of(user).id for user in users]).drain()
    until(lambda: hand.work() or all(queue_of(user).done_seq for user in users if user != unlucky), 5)
    assert [queue_of(user).done_seq for user in users] == [1, 0, 1, 1, 1]


@pytest.mark.usefixtures("fine")
def test_nobody_in_a_bundle_waits_for_a_slow_handler_before_them(
    hand: Hand, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle, "SLOW_SECONDS", 1000)  # for what is slow on all turns alike: not meant here

    @script
    def slow(request: HandlerRequest) -> int:
        until(lambda: elsewhere(lambda: hand.wire.tokens()) == 3, 5, "the others were not passed on")
        return 1

    users = [new_user() for _ in range(4)]
    submit(users[0], "slow")
    for user in users[1:]:
        submit(user, "fine")
    hand.dispatch()
    hand.wire.purge(broker.TOKEN_QUEUE)
    Bundle([queue_of(user).id for user in users]).drain()
    hand.settle()
    assert all(statuses_of(user) == ["succeeded"] for user in users)


def test_a_broker_that_hangs_does_not_hold_up_the_watch(watch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It renews every lease of the process: while it waits for RabbitMQ to take tokens, they would all run out."""
    released = threading.Event()

    class Looked:
        looks = 0

        def look_after(self) -> None:
            self.looks += 1

        def abandon(self) -> None: ...

    monkeypatch.setattr(bundle, "pass_on", lambda _: released.wait(20))
    waiting, turn = Bundle([1, 2, 3]), Looked()
    waiting.turn_began -= 10
    watch.add(waiting)
    until(lambda: not waiting.rest, 5)
    watch.add(turn)
    try:
        until(lambda: turn.looks > 3, 3, "the watch waits for RabbitMQ")
    finally:
        watch.remove(turn)
        watch.remove(waiting)
        released.set()
