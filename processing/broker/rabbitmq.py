"""All that is said to RabbitMQ about user queues; pika's errors become BrokerUnavailable here, or one queue's.

User queues are durable and classic, their messages small transient pointers: PostgreSQL can publish them again.
Every call ends by our clock. Nothing in an HTTP request calls this.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import pika
from django.conf import settings
from pika.exceptions import AMQPError, ChannelClosedByBroker

from processing.broker.amqp import Answered, Blocked, Link, NoAnswer
from processing.broker.errors import NOT_FOUND, BrokerUnavailable, QueueUnavailable
from processing.broker.pointers import Pointer

STALE_SECONDS = 20.0
ANSWER_SECONDS = 2.0  # for anything that is asked about one queue
TOGETHER_SECONDS = 1.0  # for a publication: where it is silent one of its queues is, and nobody knows which
DECLARED_TOGETHER = 25  # queues have as long: RabbitMQ makes 100 to 1000 a second, and has to make each once
AGAIN_SECONDS = 0.5  # for each of those queues by itself: who has no answer once all is silent gets another name
ASKED_AT_ONCE = 500  # queues, each on a channel of its own

CLASSIC = {"x-queue-type": "classic"}  # said aloud: a virtual host may have another default

Question = Callable[[Any, Answered], object]  # put to a channel; it says what becomes of the answer


@contextmanager
def as_unavailable() -> Iterator[None]:
    """Turn pika's and the socket's errors into BrokerUnavailable."""
    try:
        yield
    except (AMQPError, OSError) as error:
        raise BrokerUnavailable(f"{type(error).__name__}: {error}") from error


def ping(timeout: float = 2) -> None:
    """Connect and say goodbye. `timeout` in seconds, for each address. Raises BrokerUnavailable."""
    with as_unavailable():
        Link(settings.ENV.rabbitmq_url, timeout).close()


class Connection:
    """One connection, for one thread; opened when needed and again after a failure."""

    heartbeat = 60  # seconds; a thread that runs a long handler serves none meanwhile

    def __init__(self) -> None:
        self._link: Link | None = None
        self._used = time.monotonic()

    def open(self) -> Link:
        """The live connection. Raises BrokerUnavailable."""
        now = time.monotonic()
        if now - self._used > STALE_SECONDS:
            self._check()
        self._used = now
        if self._link is None or not self._link.is_open:
            self.close()
            with as_unavailable():
                self._link = Link(settings.ENV.rabbitmq_url, heartbeat=self.heartbeat)
        return self._link

    def _check(self) -> None:
        """The broker may have closed the connection, and only reading from it tells."""
        try:
            self.keep_alive()
        except BrokerUnavailable:
            self.close()

    def keep_alive(self) -> None:
        """Answer the broker's heartbeats; to be called at least every half minute by one who keeps a connection."""
        if self._link is not None:
            with as_unavailable():
                self._link.take_what_came()

    def close(self) -> None:
        """Let go of the connection; what was not acked goes back to its place in its queue."""
        link, self._link = self._link, None
        if link is not None:
            link.close()


class Channel(Connection):
    """A connection with one channel."""

    def __init__(self) -> None:
        super().__init__()
        self._channel: Any = None

    def channel(self) -> Any:
        """The live channel. Raises BrokerUnavailable."""
        link = self.open()
        if self._channel is None or not self._channel.is_open:
            with as_unavailable():
                self._channel = link.channel(ANSWER_SECONDS)
                self._prepare(link, self._channel)
        return self._channel

    def _prepare(self, link: Link, channel: Any) -> None:
        """What a fresh channel is told first."""

    def close(self) -> None:
        self._channel = None
        super().close()

    def _ask(self, question: Callable[[Any, Answered], object], seconds: float = ANSWER_SECONDS) -> Any:
        """RabbitMQ's answer. Raises pika's errors."""
        channel = self.channel()
        assert self._link is not None  # noqa: S101  (opened)
        return self._link.ask(channel, partial(question, channel), seconds)


class Publisher(Channel):
    """Publishes and waits for the broker's word. A transaction for many messages costs one round trip."""

    heartbeat = 5

    def __init__(self) -> None:
        super().__init__()
        self.declared: set[str] = set()  # RabbitMQ has these, unless somebody deleted them
        self._returned: set[str] = set()
        self.declared_a_second = 1000.0  # as many as RabbitMQ made of the last DECLARED_TOGETHER
        self._pointer = pika.BasicProperties(delivery_mode=2 if settings.ENV.persistent_messages else 1)

    def _prepare(self, link: Link, channel: Any) -> None:
        self.declared.clear()
        link.ask(channel, lambda answered: channel.tx_select(callback=answered), ANSWER_SECONDS)
        channel.add_on_return_callback(self._note_returned)

    def _note_returned(self, _channel: Any, method: Any, _properties: Any, _body: bytes) -> None:
        self._returned.add(method.routing_key)

    def forget(self, names: Iterable[str]) -> None:
        """RabbitMQ may not have these any more: they are declared before they are published to."""
        self.declared.difference_update(names)

    def close(self) -> None:
        self.declared.clear()
        super().close()

    def answers(self) -> None:
        """Ask RabbitMQ for a sign of life: one round trip. Raises BrokerUnavailable."""
        with as_unavailable():
            self._ask(lambda channel, answered: channel.tx_commit(callback=answered))

    def publish(self, queues: Iterable[tuple[str, Pointer]]) -> dict[str, QueueUnavailable]:
        """Bring each queue its pointer; once it returns the broker has them. Raises BrokerUnavailable.

        Returns the queues of which it cannot be said, and why: all others have theirs. A queue that somebody deleted
        gives its message back (mandatory): it is declared again and gets it then.
        """
        batch = list(queues)
        self.channel()  # where that fails it is no queue's fault
        try:
            for _ in range(3):
                if not batch:
                    return {}
                batch = self._publish_together(batch)
        except BrokerUnavailable as error:
            self.close()
            if isinstance(error.__cause__, Blocked):
                raise
        return self.publish_apart(batch, AGAIN_SECONDS)

    def _publish_together(self, batch: list[tuple[str, Pointer]]) -> list[tuple[str, Pointer]]:
        """Publish; the part of the batch whose queues were gone."""
        channel = self.channel()
        with as_unavailable():
            self._returned.clear()
            new = [name for name, _ in batch if name not in self.declared]
            for at in range(0, len(new), DECLARED_TOGETHER):
                *others, last = new[at : at + DECLARED_TOGETHER]
                began = time.monotonic()
                for name in others:
                    _declare(name, channel)  # what is wrong with one is the last one's answer
                self._ask(partial(_declare, last), TOGETHER_SECONDS)
                if len(others) + 1 == DECLARED_TOGETHER:  # of a few only the way there and back is known
                    self.declared_a_second = DECLARED_TOGETHER / (time.monotonic() - began)
            for name, pointer in batch:
                channel.basic_publish("", name, pointer.encode(), self._pointer, mandatory=True)
            self._ask(lambda channel, answered: channel.tx_commit(callback=answered), TOGETHER_SECONDS)
            self.declared.update(new)
        gone = [(name, pointer) for name, pointer in batch if name in self._returned]
        self.declared.difference_update(name for name, _ in gone)
        return gone

    def publish_apart(
        self, batch: list[tuple[str, Pointer]], seconds: float = ANSWER_SECONDS
    ) -> dict[str, QueueUnavailable]:
        """As `publish`, where something is wrong with some: each on a channel of its own, so that it harms no other.

        It ends once RabbitMQ has said nothing for `seconds`.
        """

        def publish(name: str, pointer: Pointer, channel: Any, answered: Answered) -> None:
            def send(_: Any) -> None:
                channel.basic_publish("", name, pointer.encode(), self._pointer, mandatory=True)
                channel.tx_commit(callback=answered)

            channel.add_on_return_callback(lambda *_: answered(NoAnswer("it vanishes as soon as it is declared")))
            channel.tx_select()
            _declare(name, channel, send)

        questions = {name: partial(publish, name, pointer) for name, pointer in batch}
        answers = apart(questions, seconds)
        return {name: answer for name, answer in answers.items() if isinstance(answer, QueueUnavailable)}

    def send(self, name: str, bodies: Iterable[bytes], properties: dict[str, Any]) -> None:
        """Publish ready-made messages to the queue `name`. Raises BrokerUnavailable."""
        channel = self.channel()
        with as_unavailable():
            for body in bodies:
                channel.basic_publish("", name, body, pika.BasicProperties(**properties))
            self._ask(lambda channel, answered: channel.tx_commit(callback=answered))

    def hold(self, name: str, arguments: dict[str, Any]) -> int:
        """Have a queue `name`; how many messages are ready in it. Raises BrokerUnavailable and QueueUnavailable."""
        try:
            with as_unavailable():
                answer = self._ask(partial(_declare, name, arguments=arguments))
            return int(answer.method.message_count)
        except BrokerUnavailable:
            self.close()
        answers = apart({name: partial(_declare, name, arguments=arguments)})
        return int(_answer(answers[name]).method.message_count)

    def delete(self, names: Sequence[str]) -> list[str]:
        """Delete queues, whatever is in them: PostgreSQL has it all. Returns those of which RabbitMQ says nothing.

        Raises BrokerUnavailable.
        """
        self.forget(names)
        return [name for name, answer in apart({name: partial(_delete, name) for name in names}).items()
                if isinstance(answer, QueueUnavailable) and answer.code != NOT_FOUND]  # fmt: skip

    def waiting_in(self, names: Sequence[str]) -> dict[str, int | QueueUnavailable | None]:
        """How many messages are ready in each queue; None: there is no such queue. Raises BrokerUnavailable."""
        found: dict[str, int | QueueUnavailable | None] = {}
        for name, answer in apart({name: partial(_declare, name, passive=True) for name in names}).items():
            if isinstance(answer, QueueUnavailable):
                found[name] = None if answer.code == NOT_FOUND else answer
            else:
                found[name] = int(answer.method.message_count)
        return found


class TokenSender(Channel):
    """Publishes tokens on a connection that does nothing else: in an alarm RabbitMQ stops reading from publishers."""

    def send(self, name: str, body: bytes, properties: dict[str, Any]) -> None:
        """Publish one message and don't wait: for tokens, which may be lost. Raises BrokerUnavailable."""
        self._check()  # what is said on a connection that RabbitMQ has ended since is lost for sure
        with as_unavailable():
            self.channel().basic_publish("", name, body, pika.BasicProperties(**properties))
            assert self._link is not None  # noqa: S101  (opened)
            self._link.flush(ANSWER_SECONDS)


def apart(questions: Mapping[str, Question], seconds: float = ANSWER_SECONDS) -> dict[str, Any]:
    """Ask something of each queue, each on a channel of its own of one connection: a silent one keeps none waiting.

    For each its answer, or QueueUnavailable. Raises BrokerUnavailable, which is nobody's fault alone.
    """
    names = list(questions)
    found: dict[str, Any] = {}
    for at in range(0, len(names), ASKED_AT_ONCE):
        part = names[at : at + ASKED_AT_ONCE]
        with as_unavailable():
            answers = Link(settings.ENV.rabbitmq_url).apart([questions[name] for name in part], seconds)
        for name, answer in zip(part, answers, strict=True):
            code = answer.reply_code if isinstance(answer, ChannelClosedByBroker) else 0
            found[name] = QueueUnavailable(str(answer), code) if isinstance(answer, BaseException) else answer
    return found


def _answer(answer: Any) -> Any:
    if isinstance(answer, QueueUnavailable):
        raise answer
    return answer


def _declare(
    name: str,
    channel: Any,
    answered: Answered | None = None,
    arguments: dict[str, Any] = CLASSIC,
    passive: bool = False,
) -> None:
    channel.queue_declare(name, durable=True, passive=passive, arguments=arguments, callback=answered)


def _delete(name: str, channel: Any, answered: Answered) -> None:
    channel.queue_delete(name, callback=answered)
