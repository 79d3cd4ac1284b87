"""A process takes tokens while it may lease queues, and leaves them to others while it may not."""

import threading
from collections.abc import Iterator

import pytest
from dramatiq import Consumer, MessageProxy
from dramatiq.errors import ConnectionClosed

from processing import actors
from processing.broker import tokens
from processing.broker.tokens import TOKEN_QUEUE, Tokens, consumers
from tests.processing.crew import Hand, Wire, new_user, queue_of, statuses_of, submit
from tests.waiting import until

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def may_take(wire: Wire) -> Iterator[threading.Event]:
    """While it is set, this process may take tokens."""
    tokens.declare_token_queue()
    wire.purge(TOKEN_QUEUE)
    event = threading.Event()
    before = tokens.broker.may_take
    tokens.broker.may_take = event.is_set
    yield event
    tokens.broker.may_take = before
    wire.purge(TOKEN_QUEUE)


@pytest.fixture
def consumer(may_take: threading.Event) -> Iterator[Consumer]:
    consumer = tokens.broker.consume(TOKEN_QUEUE, prefetch=4, timeout=20)
    yield consumer
    consumer.close()


def next_of(consumer: Consumer) -> MessageProxy:
    message: MessageProxy = until(lambda: next(consumer))
    return message


def test_a_process_that_may_not_take_tokens_leaves_them_to_others(
    consumer: Consumer, may_take: threading.Event, wire: Wire
) -> None:
    wire.put_token(1)
    assert [next(consumer) for _ in range(3)] == [None] * 3
    until(lambda: wire.tokens() == 1)
    may_take.set()
    assert next_of(consumer).args == (1,)


def test_what_it_has_goes_to_others_when_it_may_take_none_any_more(
    consumer: Consumer, may_take: threading.Event, wire: Wire
) -> None:
    may_take.set()
    wire.put_token(1)
    wire.put_token(2)
    first, _ = next_of(consumer), next_of(consumer)
    may_take.clear()
    assert next(consumer) is None
    until(lambda: wire.tokens() == 2, why="its tokens stay with it")
    may_take.set()
    again = next_of(consumer)
    consumer.ack(first)  # of the connection that is closed: it must not count as the one that came again
    may_take.clear()
    next(consumer)
    until(lambda: wire.tokens() == 2)
    assert again.args == first.args


def test_what_is_acked_does_not_come_again(consumer: Consumer, may_take: threading.Event, wire: Wire) -> None:
    may_take.set()
    wire.put_token(1)
    consumer.ack(next_of(consumer))
    may_take.clear()
    next(consumer)
    assert wire.tokens() == 0


def test_an_ack_that_finds_its_connection_lost_fails_nobody() -> None:
    class Lost(Consumer):
        def __next__(self) -> MessageProxy:
            return message

        def ack(self, message: MessageProxy) -> None:
            raise ConnectionClosed(None)

        def close(self) -> None:
            pass

    message = MessageProxy(tokens.broker.get_actor("drain").message(1))
    consumer = Tokens(Lost, lambda: True)
    consumer.ack(next(consumer))  # type: ignore[arg-type]


def test_a_worker_takes_tokens_only_while_it_may(may_take: threading.Event, wire: Wire) -> None:
    known = threading.Event()
    worker = consumers(1, known.is_set)
    worker.start()
    try:
        wire.put_token(2**40)  # nobody's
        until(lambda: wire.tokens() == 1)
        known.set()
        until(lambda: wire.tokens() == 0)
    finally:
        worker.stop(timeout=2000)


@pytest.mark.usefixtures("fine")
def test_a_token_that_names_no_queue_costs_those_that_it_names_nothing(hand: Hand) -> None:
    """Nobody but a hand in RabbitMQ sends one."""
    user = new_user()
    submit(user, "fine")
    hand.dispatch()
    actors.drain.fn("x", 2**70, None, True, queue_of(user).id)
    assert statuses_of(user) == ["succeeded"]
