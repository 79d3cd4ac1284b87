"""A token goes to RabbitMQ although the connection that its sender had is gone: no queue waits for the sweep."""

import select

import pytest
from dramatiq import Message

from processing.broker import token_sender, tokens
from processing.broker.amqp import Blocked
from processing.broker.errors import BrokerUnavailable
from processing.broker.rabbitmq import Channel
from processing.dispatch import dispatcher
from tests.processing.crew import Hand, Wire, new_user, submit
from tests.processing.silence import SilentQueues
from tests.waiting import until

pytestmark = pytest.mark.django_db(transaction=True)


def hang_up(silence: SilentQueues, *senders: Channel) -> None:
    """Returns once each of them could know."""
    links = [sender.open() for sender in senders]
    silence.hang_up()
    for link in links:
        for one in link._loop.sockets.values():
            assert select.select([one], [], [], 10)[0]


def test_a_worker_passes_tokens_on_although_its_connection_has_ended(wire: Wire, silence: SilentQueues) -> None:
    token_sender.pass_on([1])
    until(lambda: wire.tokens() == 1, 5)
    hang_up(silence, token_sender.thread.tokens)
    token_sender.pass_on([2])
    until(lambda: wire.tokens() == 2, 5)


def test_a_worker_passes_tokens_on_after_one_that_rabbitmq_did_not_read(wire: Wire) -> None:
    token_sender.pass_on([1])
    token_sender.thread.tokens.open().abort()  # as `flush` does then
    token_sender.pass_on([2])
    until(lambda: wire.tokens() == 2, 5)


def test_tokens_sent_again_say_the_name_that_their_queue_has_by_then(silence: SilentQueues, hand: Hand) -> None:
    hand.dispatch()
    silence.silent.add(tokens.token_queue())
    try:
        hand.dispatcher.tokens.send([1, 2, 3])
        assert tokens.token_queue() != tokens.TOKEN_QUEUE
        bodies = []
        while (got := hand.wire.open().basic_get(tokens.token_queue(), auto_ack=True))[2] is not None:
            bodies.append(got[2])
        assert {Message.decode(body).queue_name for body in bodies} == {tokens.token_queue()}
    finally:
        tokens.learn(0)


def test_a_dispatcher_sends_tokens_again_whose_connection_ended_meanwhile(
    wire: Wire, silence: SilentQueues, hand: Hand, ran: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between what it published and their tokens."""
    monkeypatch.setattr(dispatcher, "STALE_SECONDS", 1000.0)
    monkeypatch.setattr(hand, "wire", wire)  # it does not go that way
    user = new_user()
    submit(user, "note")
    hand.dispatch()
    hand.work()
    supply = hand.dispatcher.tokens
    send = supply.send

    def later(queue_ids: list[int], bundle: int = 1) -> None:
        if queue_ids:
            hang_up(silence, hand.dispatcher.publisher)
        send(queue_ids, bundle)

    monkeypatch.setattr(supply, "send", later)
    submit(user, "note")
    hand.settle(8)
    assert ran == [1, 2]


def test_in_an_alarm_a_dispatcher_waits_for_its_tokens_once(hand: Hand, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def blocked(*_: object) -> None:
        tried.append(1)
        raise BrokerUnavailable("an alarm") from Blocked("an alarm")

    monkeypatch.setattr(hand.dispatcher.publisher, "send", blocked)
    with pytest.raises(BrokerUnavailable):
        hand.dispatcher.tokens.send([1])
    assert tried == [1]
