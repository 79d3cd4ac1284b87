"""Dramatiq's set-up: one broker, one queue of drain tokens, none of the middleware that retries or delays.

A token says "these users' queues are ready"; it carries nothing else, may be lost (the sweeper sends another) and may
come twice (the second finds the queue not ready). So Dramatiq's retries, delays and results have no part here.

Where RabbitMQ has no word of the tokens' queue, because its node is down, tokens go to one with another name: the
newest in PostgreSQL. Every process learns it within a second.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import dramatiq
import structlog
from django.conf import settings
from dramatiq import Consumer, Message, MessageProxy, Worker
from dramatiq.brokers.rabbitmq import RabbitmqBroker
from dramatiq.common import xq_name
from dramatiq.errors import ConnectionClosed

from processing import metrics
from processing.broker.amqp import parameters
from processing.broker.errors import BrokerUnavailable, QueueUnavailable
from processing.broker.rabbitmq import CLASSIC, Publisher
from queues.lifecycle import outbox

log = structlog.get_logger()

TOKEN_QUEUE = f"{settings.ENV.queue_prefix}drain"  # its first name
ACTOR = "drain"
TOKEN_PROPERTIES: dict[str, Any] = {"delivery_mode": 2 if settings.ENV.persistent_messages else 1}
# The first one is older than this rule: as Dramatiq declares its queues.
ARGUMENTS = {**CLASSIC, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": xq_name(TOKEN_QUEUE)}
CONNECT_SECONDS, HEARTBEAT_SECONDS = 3.0, 5
MAY_TAKE_SECONDS = 0.05  # between two looks whether tokens may be taken again
TRIES = 3

_generation = 0


def token_queue() -> str:
    """The name of the queue that tokens go to now."""
    return f"{TOKEN_QUEUE}.{_generation}" if _generation else TOKEN_QUEUE


class TokenBroker(RabbitmqBroker):
    """Dramatiq's, with one queue that is declared by our clock, and none for delayed or dead messages."""

    def __init__(self) -> None:
        super().__init__(middleware=[])
        self.may_take: Callable[[], bool] = lambda: True
        self.parameters = parameters(settings.ENV.rabbitmq_url, CONNECT_SECONDS, HEARTBEAT_SECONDS)

    def declare_queue(self, queue_name: str, *, ensure: bool = False) -> None:
        """Have workers consume it; `ensure`: RabbitMQ has it too. Raises dramatiq's ConnectionClosed."""
        if queue_name not in self.queues:
            self.emit_before("declare_queue", queue_name)
            self.queues.add(queue_name)
            self.emit_after("declare_queue", queue_name)
        if ensure:
            publisher = Publisher()
            try:
                publisher.hold(queue_name, arguments_of(queue_name))
            except (BrokerUnavailable, QueueUnavailable) as error:
                raise ConnectionClosed(error) from error  # type: ignore[no-untyped-call]  # Dramatiq's has none
            finally:
                publisher.close()

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 5000) -> Consumer:
        """The tokens of that queue, as long as this process may take them and tokens go there."""
        return Tokens(
            lambda: RabbitmqBroker.consume(self, queue_name, prefetch, timeout),
            lambda: queue_name == token_queue() and self.may_take(),
        )


class Tokens(Consumer):
    """Messages of a consumer that is opened while this process may take them, and closed while it may not.

    Closed, RabbitMQ gives others at once what was not acked: a process without PostgreSQL keeps nobody waiting.
    """

    def __init__(self, open_consumer: Callable[[], Consumer], may_take: Callable[[], bool]) -> None:
        self.open_consumer, self.may_take = open_consumer, may_take
        self._consumer: Consumer | None = open_consumer() if may_take() else None
        self._taken: set[int] = set()  # from the consumer that is open; of an earlier one nothing can be acked

    def __next__(self) -> MessageProxy | None:
        if not self.may_take():
            self.close()
            time.sleep(MAY_TAKE_SECONDS)
            return None
        if self._consumer is None:
            self._consumer = self.open_consumer()
        message: MessageProxy | None = next(self._consumer)
        if message is not None:
            self._taken.add(id(message))
        return message

    def ack(self, message: MessageProxy) -> None:
        """Over. What cannot be acked comes again, and finds nothing to do."""
        consumer = self._consumer
        if consumer is not None and id(message) in self._taken:
            self._taken.discard(id(message))
            with suppress(ConnectionClosed):
                consumer.ack(message)

    nack = ack

    def close(self) -> None:
        """Raises dramatiq's ConnectionClosed."""
        consumer, self._consumer = self._consumer, None
        self._taken.clear()
        if consumer is not None:
            consumer.close()


broker = TokenBroker()
dramatiq.set_broker(broker)


def arguments_of(name: str) -> dict[str, Any]:
    """What the tokens' queue of that name is declared with."""
    return ARGUMENTS if name == TOKEN_QUEUE else CLASSIC


def learn(generation: int) -> None:
    """Tokens go to the queue of that generation from now on, and workers take them from there."""
    global _generation
    if generation != _generation:  # backwards, too: after a restore
        log.warning("tokens go to another queue", generation=generation)
        _generation = generation
        broker.declare_queue(token_queue())


def token(*queue_ids: int) -> bytes:
    """The message that asks a worker to drain these queues."""
    message: Message[None] = Message(queue_name=token_queue(), actor_name=ACTOR, args=queue_ids, kwargs={}, options={})
    return message.encode()


def consumers(threads: int, may_take: Callable[[], bool]) -> Worker:
    """Dramatiq's worker: so many threads that take tokens, once it is started, and while it may."""
    broker.may_take = may_take
    return Worker(broker, worker_threads=threads, worker_timeout=200)


def hold_token_queue(publisher: Publisher) -> int:
    """Make sure that tokens have somewhere to go, also where no worker has been yet; how many wait there.

    Raises BrokerUnavailable.
    """
    learn(outbox.token_generation())
    for _ in range(TRIES):
        try:
            return publisher.hold(token_queue(), arguments_of(token_queue()))
        except QueueUnavailable as why:
            log.warning("RabbitMQ has no word of the tokens' queue", name=token_queue(), error=str(why))
            if not why.helps_to_rename:
                raise BrokerUnavailable(str(why)) from why
            learn(outbox.rename_tokens(_generation))
            metrics.QUEUES_RENAMED.labels("tokens").inc()
    raise BrokerUnavailable("RabbitMQ has no word of any queue for tokens")


def declare_token_queue() -> None:
    """As `hold_token_queue`, on a connection of its own. Raises BrokerUnavailable."""
    publisher = Publisher()
    try:
        hold_token_queue(publisher)
    finally:
        publisher.close()
