"""Bundles: one token for many queues."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
from django.db import OperationalError

from accounts.models import User
from processing.broker import tokens
from processing.broker.rabbitmq import BrokerUnavailable, queue_name
from processing.broker.reader import Reader
from processing.dispatch import dispatcher
from processing.handlers import HandlerRequest
from processing.worker import drain
from processing.worker import token_run as bundle
from processing.worker.token_run import Bundle
from processing.worker.watchdog import Watch
from queues.lifecycle.lease import Lease
from tests.processing.crew import Hand, elsewhere, new_user, queue_of, requests_of, statuses_of, submit, until

Script = Callable[..., Any]


@pytest.fixture
def five(hand: Hand, fine: None) -> list[User]:
    """Users with a request each that RabbitMQ has, and no tokens."""
    users = [new_user() for _ in range(5)]
    for user in users:
        submit(user, "fine")
    hand.dispatch()
    hand.wire.purge(tokens.TOKEN_QUEUE)
    return users


@pytest.fixture
def undisturbed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The watch passes nothing on, however slow a busy machine is."""
    monkeypatch.setattr(Bundle, "pass_rest_on", lambda _: None)


def bundle_of(users: list[User]) -> Bundle:
    return Bundle([queue_of(user).id for user in users])


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
    hand.wire.purge(tokens.TOKEN_QUEUE)
    hand.dispatcher.sweep()
    assert woken(8) == 8


@pytest.mark.usefixtures("undisturbed")
def test_a_defect_in_one_turn_of_a_bundle_costs_the_others_nothing(
    hand: Hand, five: list[User], monkeypatch: pytest.MonkeyPatch
) -> None:
    unlucky = five[1]
    real = drain.Turn._run_claims

    def defective(turn: drain.Turn) -> None:
        if turn.lease.user_id == unlucky.id:
            raise ZeroDivisionError("a defect")
        real(turn)

    monkeypatch.setattr(drain.Turn, "_run_claims", defective)
    with pytest.raises(ZeroDivisionError):
        bundle_of(five).drain()
    until(lambda: hand.work() or all(queue_of(user).done_seq for user in five if user != unlucky), 5)
    assert [queue_of(user).done_seq for user in five] == [1, 0, 1, 1, 1]


@pytest.mark.usefixtures("undisturbed")
def test_the_queues_of_a_bundle_are_taken_each_with_the_last_record_of_the_one_before(
    hand: Hand, five: list[User], monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[int] = []
    take = Lease.take
    monkeypatch.setattr(Lease, "take", lambda queue_id, *rest: taken.append(queue_id) or take(queue_id, *rest))
    acks: list[bool] = []
    settle = Reader.settle
    monkeypatch.setattr(Reader, "settle", lambda reader: acks.append(reader._done > reader._acked) or settle(reader))
    bundle_of(five).drain()
    assert [queue_of(user).state for user in five] == ["idle"] * 5
    assert taken == [queue_of(five[0]).id]
    assert acks.count(True) == 1, "one for all of them"
    drain.reader().close()
    assert [hand.wire.depth(queue_name(queue_of(user).id)) for user in five] == [0] * 5, "what was not acked comes back"


@pytest.mark.usefixtures("undisturbed")
def test_a_bundle_goes_on_after_a_queue_that_others_took(five: list[User]) -> None:
    Lease.take(queue_of(five[1]).id, 1)
    bundle_of(five).drain()
    assert [queue_of(user).done_seq for user in five] == [1, 0, 1, 1, 1]


@pytest.mark.usefixtures("undisturbed")
def test_a_defect_gives_back_the_queue_that_was_to_follow(
    hand: Hand, five: list[User], monkeypatch: pytest.MonkeyPatch
) -> None:
    ack = drain.Turn._ack

    def defective(turn: drain.Turn, settle: bool) -> None:
        monkeypatch.setattr(drain.Turn, "_ack", ack)
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr(drain.Turn, "_ack", defective)
    with pytest.raises(ZeroDivisionError):
        bundle_of(five).drain()
    assert [queue_of(user).state for user in five] == ["idle", *["ready"] * 4]
    assert (queue_of(five[1]).fence, queue_of(five[1]).claimed) == (1, 0)
    hand.settle()
    assert [statuses_of(user) for user in five] == [["succeeded"]] * 5


@pytest.mark.usefixtures("undisturbed")
def test_a_broker_lost_at_the_last_ack_does_not_lose_the_queue_that_was_to_follow(
    five: list[User], monkeypatch: pytest.MonkeyPatch
) -> None:
    give_back = Reader.give_back

    def lost(reader: Reader) -> None:
        monkeypatch.setattr(Reader, "give_back", give_back)
        raise BrokerUnavailable("gone")

    monkeypatch.setattr(Reader, "give_back", lost)
    bundle_of(five).drain()
    assert [queue_of(user).done_seq for user in five] == [1] * 5


@pytest.mark.usefixtures("undisturbed")
def test_a_process_that_ends_takes_no_queue_beforehand(
    hand: Hand, five: list[User], watch: Watch, script: Script
) -> None:
    @script
    def fine(request: HandlerRequest) -> int:
        watch.stopping.set()
        return 1

    bundle_of(five).drain()
    assert [(queue_of(user).state, queue_of(user).fence) for user in five] == [("idle", 1), *[("ready", 0)] * 4]
    assert hand.wire.tokens() == 4


@pytest.mark.usefixtures("undisturbed")
def test_a_process_that_ends_gives_back_what_it_took_just_before(
    hand: Hand, five: list[User], watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep = Bundle.keep

    def ending(bundle: Bundle, lease: Lease) -> None:
        watch.stopping.set()
        keep(bundle, lease)

    monkeypatch.setattr(Bundle, "keep", ending)
    bundle_of(five).drain()
    assert [queue_of(user).state for user in five] == ["idle", *["ready"] * 4]
    assert (queue_of(five[1]).fence, queue_of(five[1]).claimed) == (1, 0)
    assert hand.wire.tokens() == 4


def test_a_queue_that_was_taken_does_not_wait_for_a_broker_that_hangs(
    hand: Hand, five: list[User], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its turn comes when the turn before has said goodbye to RabbitMQ."""
    give_back = Reader.give_back

    def hanging(reader: Reader) -> None:
        monkeypatch.setattr(Reader, "give_back", give_back)
        until(lambda: elsewhere(lambda: hand.wire.tokens()) == 4, 5, "the others were not passed on")
        give_back(reader)

    monkeypatch.setattr(Reader, "give_back", hanging)
    bundle_of(five).drain()
    assert [(queue_of(user).state, queue_of(user).claimed) for user in five[1:]] == [("ready", 0)] * 4
    hand.settle()
    assert [statuses_of(user) for user in five] == [["succeeded"]] * 5


@pytest.mark.usefixtures("undisturbed")
@pytest.mark.parametrize("committed", [True, False])
def test_an_answer_that_is_lost_loses_no_queue_that_was_taken_with_it(
    five: list[User], committed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = Lease.record

    def lost(lease: Lease, *values: Any) -> Any:
        monkeypatch.setattr(Lease, "record", record)
        if committed:
            state = lease.done_seq, lease.published_seq, lease.state
            assert record(lease, *values) is not None
            lease.done_seq, lease.published_seq, lease.state = state
        raise OperationalError("the connection was lost")

    monkeypatch.setattr(Lease, "record", lost)
    bundle_of(five).drain()
    if committed:  # nobody here knows of that lease: the watch gives it back
        until(lambda: queue_of(five[1]).state == "ready", 10)
        drain.drain_queue(queue_of(five[1]).id)
    assert [(queue_of(user).state, queue_of(user).done_seq) for user in five] == [("idle", 1)] * 5
    assert [request.attempt for user in five for request in requests_of(user)] == [1] * 5


@pytest.mark.usefixtures("undisturbed")
def test_what_cannot_be_acked_at_the_end_comes_back(
    hand: Hand, five: list[User], monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(reader: Reader) -> None:
        raise BrokerUnavailable("gone")

    with monkeypatch.context() as patch:
        patch.setattr(Reader, "settle", gone)
        bundle_of(five[:1]).drain()
    until(lambda: hand.wire.depth(queue_name(queue_of(five[0]).id)) == 1, 5)
    submit(five[0], "fine")
    hand.settle()
    assert statuses_of(five[0]) == ["succeeded", "succeeded"]


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
    hand.wire.purge(tokens.TOKEN_QUEUE)
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

        def renewal(self) -> None: ...

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
