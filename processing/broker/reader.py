"""A worker's way to read users' queues, one after another; its errors are those of processing/broker/rabbitmq.py."""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pika import spec
from pika.exceptions import AMQPError, ChannelClosedByBroker

from processing.broker.amqp import Link, NoAnswer
from processing.broker.rabbitmq import (
    ANSWER_SECONDS,
    NOT_FOUND,
    BrokerUnavailable,
    Channel,
    Delivery,
    QueueGone,
    QueueUnavailable,
    as_unavailable,
)

MOST_AHEAD = 1000


class Reader(Channel):
    """Reads one user's queue after another. A turn of one message gets it; a longer one consumes.

    What was received and is `done` is acked by `settle`, all at once; the rest goes back to its place when it stops.
    While messages stream in that waits until no more come: RabbitMQ sends others for those that are acked, and the turn
    may be over before it gets to them.
    """

    def __init__(self) -> None:
        super().__init__()
        self._consumer = ""  # the tag of the one whose messages stream in
        self._come: deque[Delivery] = deque()
        self._empty = False  # RabbitMQ's answer to `get`
        self._ahead = 0  # how many that are not acked RabbitMQ sends while they stream in
        self._received = self._done = self._acked = 0

    def _prepare(self, link: Link, channel: Any) -> None:
        channel.add_callback(self._note_empty, [spec.Basic.GetEmpty], one_shot=False)
        channel.add_on_cancel_callback(self._note_cancelled)

    def get(self, name: str) -> Delivery | None:
        """The next message now in the queue, or None: it is empty.

        Raises BrokerUnavailable, QueueGone and QueueUnavailable.
        """
        channel = self.open()
        self.stop()
        with self._own_errors():
            self._empty = False
            channel.basic_get(name, self._note)
            assert self._link is not None  # noqa: S101  (opened)
            self._link.wait(channel, self._got, ANSWER_SECONDS)
        return self._take()

    def consume(self, name: str, ahead: int, patience: float = 0.2) -> Delivery | None:
        """The next message as they stream in, at most `ahead` unacked, or None: none came for `patience` seconds.

        Raises as `get` does.
        """
        channel = self.open()
        if not self._consumer:
            self._begin(channel, name, max(1, min(ahead, MOST_AHEAD)))
        elif self._received - self._acked >= self._ahead:
            self._ack_what_is_done()
        if not self._come:
            with self._own_errors():
                assert self._link is not None  # noqa: S101  (opened)
                self._link.wait_for_some_time(channel, self._streamed, patience)
        return self._take()

    def _begin(self, channel: Any, name: str, ahead: int) -> None:
        with self._own_errors():
            self._ahead = ahead
            channel.basic_qos(prefetch_count=ahead)
            answer = self._ask(lambda channel, answered: channel.basic_consume(name, self._note, callback=answered))
            self._consumer = answer.method.consumer_tag

    def done(self, tag: int) -> None:
        """Everything received up to `tag` is done with; RabbitMQ hears of it when it is settled."""
        self._done = tag

    def settle(self) -> None:
        """Ack what is done, unless messages stream in. Raises BrokerUnavailable."""
        if not self._consumer:
            self._ack_what_is_done()

    def _ack_what_is_done(self) -> None:
        if self._done > self._acked:
            self._acked = self._done
            with as_unavailable():
                assert self._link is not None  # noqa: S101  (something was received)
                self._channel.basic_ack(self._done, multiple=True)
                self._link.flush(ANSWER_SECONDS)

    def stop(self) -> None:
        """Stop consuming; what was received but not acked goes back to its place. Raises BrokerUnavailable."""
        consumer, self._consumer = self._consumer, ""
        if consumer or self._come:
            with as_unavailable():
                if consumer:
                    self._ask(lambda channel, answered: channel.basic_cancel(consumer, callback=answered))
                while self._come:
                    self._channel.basic_reject(self._come.pop().tag, requeue=True)

    def give_back(self) -> None:
        """Put everything received and not done back to its place. Raises BrokerUnavailable."""
        self.stop()
        if self._received > self._done:
            self.settle()
            self._done = self._acked = self._received
            with as_unavailable():
                self._channel.basic_nack(0, multiple=True, requeue=True)

    def close(self) -> None:
        self._consumer = ""
        self._come.clear()
        self._received = self._done = self._acked = 0
        super().close()

    def _take(self) -> Delivery | None:
        if not self._come:
            return None
        delivery = self._come.popleft()
        self._received = delivery.tag
        return delivery

    def _note(self, _channel: Any, method: Any, _properties: Any, body: bytes) -> None:
        self._come.append(Delivery.decode(body, method.delivery_tag))

    def _note_empty(self, _frame: Any) -> None:
        self._empty = True

    def _note_cancelled(self, _frame: Any) -> None:
        """The queue was deleted, or its node died: RabbitMQ sends no more."""
        self._consumer = ""

    def _got(self) -> bool:
        return self._empty or bool(self._come)

    def _streamed(self) -> bool:
        return bool(self._come) or not self._consumer

    @contextmanager
    def _own_errors(self) -> Iterator[None]:
        try:
            yield
        except NoAnswer as error:
            self.close()
            self.open()  # the others' queues go on; where nobody lets us in it is not the queue's fault
            raise QueueUnavailable(str(error)) from error
        except ChannelClosedByBroker as error:
            self.close()  # the channel went with it, and with the channel every tag
            if error.reply_code == NOT_FOUND:
                raise QueueGone from error
            raise QueueUnavailable(str(error), error.reply_code) from error
        except (AMQPError, OSError) as error:
            raise BrokerUnavailable(f"{type(error).__name__}: {error}") from error
