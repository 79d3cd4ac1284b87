"""A connection to RabbitMQ whose every call ends by our clock: of a queue on a dead node RabbitMQ may never answer.

pika's blocking connection waits for ever. This one is its SelectConnection, moved on by the thread that waits.
RabbitMQ's backpressure, an alarm that stops publishers, is `Blocked` here.
"""

import random
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import pika
from pika.adapters.utils.connection_workflow import AMQPConnectorSocketConnectError
from pika.channel import Channel
from pika.exceptions import AMQPConnectionError, AMQPError

from processing.broker.loop import Loop
from project.rabbitmq_addresses import amqp_urls

TICK_SECONDS = 0.1  # how much later than its time a call may end
GOODBYE_SECONDS = 0.5  # for closing in order; then the socket is shut
SLOWEST = 25  # answers about queues a second; who gives fewer is as good as silent
BLOCKED_SECONDS = 30.0  # how long a publisher is patient once RabbitMQ said that an alarm keeps it waiting
# The kernel ends a connection whose other end is gone without a word.
TCP_OPTIONS = {"TCP_USER_TIMEOUT": 5000, "TCP_KEEPIDLE": 5, "TCP_KEEPINTVL": 2, "TCP_KEEPCNT": 3}

Answered = Callable[[Any], None]


class NoAnswer(AMQPError):
    """RabbitMQ was silent for longer than the call may take. The connection is closed."""


class Blocked(AMQPError):
    """An alarm of RabbitMQ (memory, disk) keeps publishers waiting for longer than we are patient."""


def parameters(text: str, seconds: float, heartbeat: int) -> list[pika.URLParameters]:
    """How to connect to each address of RABBITMQ_URL, `seconds` for each, in an order of chance: the load is spread."""
    found = [pika.URLParameters(url) for url in amqp_urls(text)]
    for one in found:
        one.socket_timeout = one.stack_timeout = seconds
        one.heartbeat = heartbeat
        one.connection_attempts = 1
        one.tcp_options = TCP_OPTIONS
    random.shuffle(found)
    return found


class Link:
    """One connection, for one thread. What goes wrong is raised as pika's AMQPError or OSError."""

    def __init__(self, text: str, seconds: float = 3.0, heartbeat: int = 60) -> None:
        """Connect to the first address of RABBITMQ_URL that lets us in; `seconds` for each of them."""
        self.blocked = False  # by an alarm
        self.lost: BaseException | None = None
        self._closed: dict[int, BaseException] = {}  # why RabbitMQ closed a channel
        self._connection: Any = None
        self._loop: Any = Loop()
        self._loop.activate_poller()
        self._tick()
        addresses = parameters(text, seconds, heartbeat)
        opened: list[Any] = []
        connecting = pika.SelectConnection.create_connection(addresses, on_done=opened.append, custom_ioloop=self._loop)
        try:
            if not self._move(lambda: bool(opened), seconds * len(addresses) + 1):
                raise NoAnswer("RabbitMQ lets nobody in in time")
            if isinstance(opened[0], BaseException):
                raise _telling_cause(opened[0])
        except BaseException:
            if not opened:
                connecting.abort()
            self._end()
            raise
        self._connection = opened[0]
        self._connection.add_on_close_callback(self._note_lost)
        self._connection.add_on_connection_blocked_callback(partial(self._note_blocked, True))
        self._connection.add_on_connection_unblocked_callback(partial(self._note_blocked, False))

    @property
    def is_open(self) -> bool:
        return self.lost is None

    def channel(self, seconds: float) -> Channel:
        """A new channel."""
        opened: list[Any] = []
        self._must_be_open()
        channel: Channel = self._connection.channel(on_open_callback=opened.append)
        channel.add_on_close_callback(self._note_closed)
        self.wait(channel, lambda: bool(opened), seconds)
        return channel

    def ask(self, channel: Channel, question: Callable[[Answered], object], seconds: float) -> Any:
        """RabbitMQ's answer. Raises NoAnswer after `seconds`, and what RabbitMQ closed the channel with."""
        answers: list[Any] = []
        self._must_be_open()
        question(answers.append)
        self.wait(channel, lambda: bool(answers), seconds)
        return answers[0]

    def wait(self, channel: Channel, done: Callable[[], bool], seconds: float) -> None:
        """Until `done`, as `ask` does. As long as an alarm is on, which concerns all, it is more patient."""
        if self._move(lambda: done() or channel.is_closed, seconds) or self._sits_out_alarm(channel, done):
            self._must_be_open()
            if not done():
                raise self._closed.pop(channel.channel_number)
            return
        blocked = self.blocked
        self.abort()
        if blocked:
            raise Blocked("an alarm of RabbitMQ keeps publishers waiting")
        raise NoAnswer(f"no answer for {seconds:.1f} s")

    def new_channel(self, opened: Callable[[Channel], None], closed: Callable[[Channel, BaseException], None]) -> None:
        """Ask for a channel: `opened` is told once it is there, and `closed` when RabbitMQ has closed it."""
        self._must_be_open()
        self._connection.channel(on_open_callback=opened).add_on_close_callback(closed)

    def serve(self, done: Callable[[], bool], seconds: float) -> bool:
        """Whether it was `done` within `seconds`; nothing is wrong if not. Raises what ended the connection."""
        self._must_be_open()
        timer = self._loop.call_later(seconds, _nothing)
        try:
            moved = self._move(done, seconds)
        finally:
            if self._loop is not None:
                self._loop.remove_timeout(timer)
        self._must_be_open()
        return moved

    def flush(self, seconds: float) -> None:
        """Until all is with the kernel that was said. Raises NoAnswer: RabbitMQ does not read."""
        if not self._move(lambda: not self._loop.writing, seconds):
            self.abort()
            raise NoAnswer(f"RabbitMQ read nothing for {seconds:.1f} s")
        self._must_be_open()

    def take_what_came(self) -> None:
        """Take what RabbitMQ sent by itself, and answer heartbeats; waits for nothing."""
        self._must_be_open()
        self._loop.add_callback(_nothing)  # it need not wait for the socket
        self._loop.poll()
        self._loop.process_timeouts()
        self._must_be_open()

    def apart(self, questions: Sequence[Callable[[Channel, Answered], object]], seconds: float) -> list[Any]:
        """Ask all at once, each on a channel of its own: a silent one keeps no other waiting. The link is closed then.

        For each question its answer, or what RabbitMQ closed the channel with, or NoAnswer, once nothing has come for
        `seconds`. Raises as `ask` does where RabbitMQ says nothing on one more channel either: it is not about them.
        """
        found: list[Any] = [None] * len(questions)
        left = set(range(len(questions)))

        def note(number: int, answer: Any) -> None:
            if number in left:
                found[number] = answer
                left.discard(number)

        def begin(question: Callable[[Channel, Answered], object], number: int, channel: Channel) -> None:
            question(channel, partial(note, number))

        try:
            for number, question in enumerate(questions):
                channel = self._connection.channel(on_open_callback=partial(begin, question, number))
                channel.add_on_close_callback(lambda _channel, reason, number=number: note(number, reason))
            self._move_on(lambda: not left, seconds, seconds + len(questions) / SLOWEST)
            self._must_be_open()  # lost with the connection, none was answered
            if left:
                self.channel(seconds)
            if self.blocked:
                raise Blocked("an alarm of RabbitMQ keeps publishers waiting")
            for number in left:
                found[number] = NoAnswer(f"no answer for {seconds:.1f} s")
            if not left:
                self.close()
            left.clear()
            return found
        finally:
            self.abort()

    def close(self) -> None:
        """Say goodbye, or hang up where nobody listens."""
        if self.lost is None and self._connection is not None:
            with suppress(AMQPError, OSError):
                self._connection.close()
                self._move(lambda: False, GOODBYE_SECONDS)
        self._end()

    def abort(self) -> None:
        """Hang up at once."""
        self.lost = self.lost or AMQPConnectionError("closed by us: it did not answer in time")
        self._end()

    def _end(self) -> None:
        self.lost = self.lost or AMQPConnectionError("closed")
        if self._loop is not None:
            loop, self._loop = self._loop, None
            loop.shut_sockets()
            with suppress(AMQPError, OSError):
                for _ in range(3):  # pika notices, and closes its socket
                    loop.add_callback(_nothing)
                    loop.poll()
                    loop.process_timeouts()
            loop.close()

    def _move(self, done: Callable[[], bool], seconds: float) -> bool:
        """Serve the connection until `done` or lost. False: not within `seconds`."""
        loop = self._loop
        deadline = time.monotonic() + seconds
        while not done() and self.lost is None:
            loop.poll()
            loop.process_timeouts()
            if time.monotonic() >= deadline:
                return done() or self.lost is not None
        return True

    def _move_on(self, done: Callable[[], bool], silent: float, most: float) -> None:
        """Serve the connection until `done` or lost; `most` seconds, or until RabbitMQ was `silent` for so many."""
        until, heard = time.monotonic() + most, 0

        def moved() -> bool:
            return done() or self._heard != heard

        while not done() and self.lost is None and (rest := until - time.monotonic()) > 0:
            heard = self._heard
            if not self._move(moved, min(silent, rest)):
                return

    @property
    def _heard(self) -> int:
        """How many frames RabbitMQ has sent."""
        return int(self._connection.frames_received)

    def _sits_out_alarm(self, channel: Channel, done: Callable[[], bool]) -> bool:
        if not self.blocked:
            return False
        over = self._move(lambda: done() or channel.is_closed or not self.blocked, BLOCKED_SECONDS)
        return over and self._move(lambda: done() or channel.is_closed, GOODBYE_SECONDS)

    def _tick(self) -> None:
        """Have poll return, so that the clock is looked at."""
        if self._loop is not None:
            self._loop.call_later(TICK_SECONDS, self._tick)

    def _must_be_open(self) -> None:
        if self.lost is not None:
            raise self.lost

    def _note_lost(self, _connection: Any, error: BaseException) -> None:
        self.lost = self.lost or error

    def _note_closed(self, channel: Any, reason: BaseException) -> None:
        self._closed[channel.channel_number] = reason

    def _note_blocked(self, blocked: bool, *_: Any) -> None:
        self.blocked = blocked


def _telling_cause(error: BaseException) -> BaseException:
    """What the last address said that answered at all, else what became of the last; pika tells of all attempts as one.

    A name has several addresses: that ::1 cannot be reached says nothing about the certificate that 127.0.0.1 has.
    pika documents none of these errors; `tests/processing/test_tls.py` fails when they change.
    """
    attempts = getattr(error, "exceptions", None)
    while attempts:
        answered = [one for one in attempts if not isinstance(one, AMQPConnectorSocketConnectError)]
        error = (answered or attempts)[-1]
        attempts = getattr(error, "exceptions", None) or ([error.exception] if hasattr(error, "exception") else None)
    return error if isinstance(error, AMQPError | OSError) else AMQPConnectionError(str(error) or type(error).__name__)


def _nothing() -> None:
    pass
