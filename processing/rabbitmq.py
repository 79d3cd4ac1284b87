"""All that is said to RabbitMQ about user queues, with pika; its errors become BrokerUnavailable here.

User queues are durable and classic, their messages small transient pointers: PostgreSQL can publish them again.
Nothing in an HTTP request calls this.
"""

import struct
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple
from uuid import UUID

import pika
from django.conf import settings
from pika.exceptions import AMQPError, ChannelClosedByBroker

POINTER = struct.Struct(">q16s")
NOT_FOUND = 404
STALE_SECONDS = 20.0
MOST_AHEAD = 1000


class BrokerUnavailable(Exception):
    """RabbitMQ is not there, refuses us, or does not answer in time."""


class QueueGone(Exception):
    """The user's queue does not exist in RabbitMQ (any more)."""


class Pointer(NamedTuple):
    """What is published to a user's queue: which request, and its place in line."""

    seq: int
    request_id: UUID

    def encode(self) -> bytes:
        """The message's body: 24 bytes."""
        return POINTER.pack(self.seq, self.request_id.bytes)


class Delivery(NamedTuple):
    """A message as it is received: its place in line, which is all that a worker goes by, and its delivery tag."""

    seq: int
    tag: int

    @classmethod
    def decode(cls, body: bytes, tag: int) -> "Delivery":
        """A message that is no pointer (somebody else's) counts as one long done, so that it is acked and forgotten."""
        return cls(POINTER.unpack(body)[0] if len(body) == POINTER.size else 0, tag)


def queue_name(queue_id: int) -> str:
    """The RabbitMQ queue of a user's queue."""
    return f"{settings.ENV.queue_prefix}user.{queue_id}"


@contextmanager
def _ours() -> Iterator[None]:
    """Turn pika's and the socket's errors into BrokerUnavailable."""
    try:
        yield
    except (AMQPError, OSError) as error:
        raise BrokerUnavailable(f"{type(error).__name__}: {error}") from error


def _parameters(timeout: float) -> pika.URLParameters:
    parameters = pika.URLParameters(settings.ENV.rabbitmq_url)
    parameters.socket_timeout = timeout
    parameters.stack_timeout = timeout
    parameters.blocked_connection_timeout = 30
    parameters.heartbeat = 60
    parameters.connection_attempts = 1
    return parameters


def ping(timeout: float = 2) -> None:
    """Connect and say goodbye. `timeout` in seconds. Raises BrokerUnavailable."""
    with _ours():
        pika.BlockingConnection(_parameters(timeout)).close()


class Channel:
    """One connection with one channel, for one thread; opened when needed and again after a failure."""

    def __init__(self) -> None:
        self._connection: Any = None
        self._channel: Any = None
        self._used = time.monotonic()

    def open(self) -> Any:
        """The live channel. Raises BrokerUnavailable."""
        now = time.monotonic()
        if now - self._used > STALE_SECONDS:
            self._look_whether_alive()
        self._used = now
        if self._channel is None or not self._channel.is_open:
            self.close()
            with _ours():
                self._connection = pika.BlockingConnection(_parameters(10))
                self._channel = self._connection.channel()
                self._prepare(self._channel)
        return self._channel

    def _look_whether_alive(self) -> None:
        """After a long silence: the broker may have closed the connection, and only reading from it tells."""
        try:
            self.keep_alive()
        except BrokerUnavailable:
            self.close()

    def _prepare(self, channel: Any) -> None:
        """What a fresh channel is told first."""

    def keep_alive(self) -> None:
        """Answer the broker's heartbeats; to be called at least every half minute by one who keeps a channel."""
        if self._connection is not None:
            with _ours():
                self._connection.process_data_events(0)

    def close(self) -> None:
        """Let go of the connection; what was not acked goes back to its place in its queue."""
        connection, self._connection, self._channel = self._connection, None, None
        if connection is not None and connection.is_open:
            try:
                connection.close()
            except (AMQPError, OSError):
                return  # it was gone already: the broker requeues all the same


class Publisher(Channel):
    """Publishes and waits for the broker's word. A transaction for many messages costs one round trip."""

    def __init__(self) -> None:
        super().__init__()
        self._declared: set[int] = set()
        self._returned: set[str] = set()
        self._pointer = pika.BasicProperties(delivery_mode=2 if settings.ENV.persistent_messages else 1)

    def _prepare(self, channel: Any) -> None:
        self._declared.clear()
        channel.tx_select()
        channel.add_on_return_callback(
            lambda _channel, method, _properties, _body: self._returned.add(method.routing_key)
        )

    def publish(self, queues: Iterable[tuple[int, list[Pointer]]]) -> None:
        """Bring each queue its pointers, in order; once it returns the broker has them. Raises BrokerUnavailable.

        A queue that somebody deleted gives its messages back (mandatory): it is declared again and gets all of them.
        """
        batch = list(queues)
        for _ in range(3):
            batch = self._publish_once(batch)
            if not batch:
                return
        raise BrokerUnavailable(f"{len(batch)} queues vanish as often as they are declared")

    def _publish_once(self, batch: list[tuple[int, list[Pointer]]]) -> list[tuple[int, list[Pointer]]]:
        """Publish; the part of the batch whose queues were gone."""
        channel = self.open()
        with _ours():
            self._returned.clear()
            for queue_id, pointers in batch:
                name = queue_name(queue_id)
                if queue_id not in self._declared:
                    channel.queue_declare(name, durable=True)
                    self._declared.add(queue_id)
                for pointer in pointers:
                    # The channel below the blocking one: that would send each message by itself, at twice the price for
                    # both sides. The commit sends them all.
                    channel._impl.basic_publish("", name, pointer.encode(), self._pointer, mandatory=True)
            channel.tx_commit()
            self._connection.process_data_events(0)  # only here does pika hand over what came back
        gone = [(queue_id, pointers) for queue_id, pointers in batch if queue_name(queue_id) in self._returned]
        self._declared.difference_update(queue_id for queue_id, _ in gone)
        return gone

    def answers(self) -> None:
        """One question about no queue, and its answer. Raises BrokerUnavailable."""
        channel = self.open()
        with _ours():
            channel.tx_commit()

    def send(self, name: str, bodies: Iterable[bytes], properties: dict[str, Any]) -> None:
        """Publish ready-made messages to the queue `name`. Raises BrokerUnavailable."""
        channel = self.open()
        with _ours():
            for body in bodies:
                channel.basic_publish("", name, body, pika.BasicProperties(**properties))
            channel.tx_commit()

    def delete(self, queue_id: int) -> None:
        """Delete a user's queue, whatever is in it: PostgreSQL has it all. Raises BrokerUnavailable."""
        self._declared.discard(queue_id)
        channel = self.open()
        with _ours():
            channel.queue_delete(queue_name(queue_id))

    def waiting_in(self, name: str) -> int | None:
        """How many messages are ready in the queue `name`; None: there is no such queue. Raises BrokerUnavailable."""
        channel = self.open()
        try:
            with _ours():
                return int(channel.queue_declare(name, passive=True).method.message_count)
        except BrokerUnavailable as error:
            if isinstance(error.__cause__, ChannelClosedByBroker) and error.__cause__.reply_code == NOT_FOUND:
                return None
            raise


class TokenSender(Channel):
    """Publishes tokens on a connection that does nothing else: in an alarm RabbitMQ stops reading from publishers."""

    def send(self, name: str, body: bytes, properties: dict[str, Any]) -> None:
        """Publish one message and don't wait: for tokens, which may be lost. Raises BrokerUnavailable."""
        with _ours():
            self.open().basic_publish("", name, body, pika.BasicProperties(**properties))


class Reader(Channel):
    """Reads one user's queue after another. A turn of one message gets it; a longer one consumes.

    What was received and is `done` is acked by `settle`, all at once; the rest goes back to its place when it stops.
    While messages stream in that waits until no more come: RabbitMQ sends others for those that are acked, and the turn
    may be over before it gets to them.
    """

    def __init__(self) -> None:
        super().__init__()
        self._messages: Iterator[Delivery | None] | None = None
        self._ahead = 0  # how many that are not acked RabbitMQ sends while they stream in
        self._received = self._done = self._acked = 0

    def get(self, queue_id: int) -> Delivery | None:
        """The next message now in the queue, or None: it is empty. Raises BrokerUnavailable and QueueGone."""
        channel = self.open()
        self.stop()
        with self._gone_or_ours():
            method, _, body = channel.basic_get(queue_name(queue_id))
        return None if method is None else self._take(body, method.delivery_tag)

    def consume(self, queue_id: int, ahead: int, patience: float = 0.2) -> Delivery | None:
        """The next message as they stream in, at most `ahead` unacked, or None: none came for `patience` seconds.

        Raises as `get` does.
        """
        channel = self.open()
        if self._messages is None:
            self._messages = self._stream(channel, queue_id, max(1, min(ahead, MOST_AHEAD)), patience)
        elif self._received - self._acked >= self._ahead:
            self._ack_what_is_done()
        return next(self._messages, None)

    def _stream(self, channel: Any, queue_id: int, ahead: int, patience: float) -> Iterator[Delivery | None]:
        with self._gone_or_ours():  # once, not for each of them
            self._ahead = ahead
            channel.basic_qos(prefetch_count=ahead)
            for method, _, body in channel.consume(queue_name(queue_id), inactivity_timeout=patience):
                yield None if method is None else self._take(body, method.delivery_tag)

    def done(self, tag: int) -> None:
        """Everything received up to `tag` is done with; RabbitMQ hears of it when it is settled."""
        self._done = tag

    def settle(self) -> None:
        """Ack what is done, unless messages stream in. Raises BrokerUnavailable."""
        if self._messages is None:
            self._ack_what_is_done()

    def _ack_what_is_done(self) -> None:
        if self._done > self._acked:
            self._acked = self._done
            with _ours():
                self._channel.basic_ack(self._done, multiple=True)

    def stop(self) -> None:
        """Stop consuming; what was received but not acked goes back to its place. Raises BrokerUnavailable."""
        if self._messages is not None:
            self._messages = None
            with _ours():
                self._channel.cancel()

    def give_back(self) -> None:
        """Put everything received and not done back to its place. Raises BrokerUnavailable."""
        self.stop()
        if self._received > self._done:
            self.settle()
            self._done = self._acked = self._received
            with _ours():
                self._channel.basic_nack(0, multiple=True, requeue=True)

    def close(self) -> None:
        self._messages = None
        self._received = self._done = self._acked = 0
        super().close()

    def _take(self, body: Any, tag: int) -> Delivery:
        self._received = tag
        return Delivery.decode(body, tag)

    @contextmanager
    def _gone_or_ours(self) -> Iterator[None]:
        try:
            with _ours():
                yield
        except BrokerUnavailable as error:
            if isinstance(error.__cause__, ChannelClosedByBroker) and error.__cause__.reply_code == NOT_FOUND:
                self.close()  # the channel went with it, and with the channel every tag
                raise QueueGone from error
            raise
