"""What RabbitMQ has for one user's queue, on a channel of a worker thread's connection. The fetcher opens it."""

import time
from collections import deque
from typing import Any, Protocol

from pika import spec
from pika.exceptions import ChannelClosedByBroker

from processing.broker.errors import NOT_FOUND, QueueGone, QueueUnavailable
from processing.broker.pointers import Delivery
from processing.broker.rabbitmq import ANSWER_SECONDS

WORTH_CONSUMING = 4  # of a queue where fewer messages are left each is asked for by itself
STREAM_SECONDS = 0.2  # a stream that brings nothing for so long is asked whether there is more
MOST_AHEAD = 1000


class FetcherOfIt(Protocol):
    """What a source needs of the fetcher that opened it."""

    lock: Any

    def close_source(self, source: "Source") -> None: ...

    def free(self, source: "Source", channel: Any) -> None: ...


class Source:
    """What RabbitMQ has for one user's queue, as it comes: the first message is asked for, and so are the others one by
    one, unless many are left and wanted: those stream in.

    What was taken and is done with is acked by `settle`, all at once; the rest goes back to its place with `close`.
    While messages stream in, acks wait for the end: acking early would make RabbitMQ send more messages.
    """

    def __init__(self, fetcher: FetcherOfIt, name: str, ahead: int) -> None:
        self.name = name
        self.ahead = max(1, min(ahead, MOST_AHEAD))  # requests that are still wanted, until messages stream in
        self.come: deque[Delivery] = deque()
        self.empty = False  # RabbitMQ said so
        self.error: BaseException | None = None
        self.channel: Any = None
        self._fetcher = fetcher
        self._streams = False
        self._consumer = ""
        self._asked = time.monotonic()  # since when RabbitMQ owes an answer to a question; 0: to none
        self._silent_since = 0.0  # while it is waited for
        self._last = self._done = self._acked = 0  # delivery tags
        self._prefetch = 0  # messages that stream in without being acked ..
        self._before = 0  # .. after this one, by its tag
        self.closed = False

    def begin(self, channel: Any) -> None:
        """From now on it is read over this channel."""
        self.channel = channel
        self._get()

    def take(self) -> Delivery | None:
        """The next message, if one has come; if not, it is on its way, or the queue is `empty`.

        Raises QueueGone and QueueUnavailable.
        """
        if self.come:
            self._silent_since = 0.0
            return self.come.popleft()
        if self.error is not None:
            raise self.error
        with self._fetcher.lock:
            if self.channel is not None and not self._asked and not self.empty:
                if not self._streams:
                    self._get()
                elif self._last - max(self._acked, self._before) >= self._prefetch:
                    self._ack()
        return None

    def done(self, tag: int) -> None:
        """All up to this delivery is done with."""
        self._done = max(self._done, tag)

    def settle(self) -> None:
        """Ack what is done, unless messages stream in."""
        with self._fetcher.lock:
            if not self._streams and self.channel is not None:  # lost, all that it brought goes back to its place
                self._ack()

    def close(self) -> None:
        """Read no more of it: what is not done goes back to its place."""
        self._fetcher.close_source(self)

    # What its fetcher asks, and RabbitMQ answers.

    def ask_again(self) -> None:
        """It was empty, but that may have changed."""
        self.empty, self._silent_since = False, 0.0

    def is_overdue(self, now: float) -> bool:
        """Whether RabbitMQ owes an answer for too long. A stream that is silent is asked whether there is more."""
        if self.error is not None:
            return False
        if self._streams and not self._asked and not self.empty and not self.come:
            self._silent_since = self._silent_since or now  # it was not listened to before
            if now - self._silent_since > STREAM_SECONDS:
                self._get()
        return self._asked > 0 and now - self._asked > ANSWER_SECONDS

    @property
    def moved(self) -> bool:
        """Whether there is something new."""
        return bool(self.come) or self.empty or self.error is not None

    @property
    def owes(self) -> bool:
        """Whether an answer is on its way, and nothing is new until it comes."""
        return self._asked > 0 and not self.moved

    def note(self, _channel: Any, method: Any, _properties: Any, body: bytes) -> None:
        """A message has come."""
        if not self._last:
            self._acked = method.delivery_tag - 1  # those before it were another source's
        self._last = method.delivery_tag
        self._silent_since = 0.0
        delivery = Delivery.decode(body, method.delivery_tag)
        self.come.append(delivery)
        if method.INDEX != spec.Basic.GetOk.INDEX:
            return
        self._asked = 0.0
        if self.closed and not self._streams:
            self.let_go()
        elif not self._streams and self.channel is not None:
            self._stream_if_many(delivery.places, method.message_count)

    def _stream_if_many(self, places: int, left: int) -> None:
        """Have more messages come without asking for each; those are about as long as this one, of so many places."""
        self.ahead = max(1, self.ahead - places)
        wanted = self.ahead // places
        if min(left, wanted) >= WORTH_CONSUMING:
            self._streams, self._prefetch, self._before = True, wanted, self._last
            self.channel.basic_qos(prefetch_count=wanted)
            self._consumer = self.channel.basic_consume(self.name, self.note)

    def note_empty(self) -> None:
        """The queue has no message."""
        self._asked, self._silent_since, self.empty = 0.0, 0.0, True
        if self.closed and not self._streams:
            self.let_go()

    def note_cancelled(self) -> None:
        """The queue was deleted, or its node died: RabbitMQ sends no more."""
        self._streams, self._consumer = False, ""

    def note_error(self, reason: BaseException) -> None:
        """The channel is closed, and with it went every tag."""
        self.channel, self._asked = None, 0.0
        if isinstance(reason, ChannelClosedByBroker) and reason.reply_code == NOT_FOUND:
            self.error = QueueGone(self.name)
        else:
            self.error = QueueUnavailable(str(reason), getattr(reason, "reply_code", 0))

    def end(self) -> bool:
        """Whether nothing of it is under way: then `let_go` may follow. Else it does by itself, after the answer."""
        if self._streams:
            consumer, self._consumer = self._consumer, ""
            if consumer:
                self._asked = time.monotonic()
                self.channel.basic_cancel(consumer, callback=lambda _: self.let_go())
            return False
        return not self._asked

    def let_go(self) -> None:
        """Ack what is done, give the rest back, and the channel to whoever needs one."""
        if self.channel is None:
            return
        self._streams, self._asked = False, 0.0
        self._ack()
        if self._last > self._acked:
            self.channel.basic_nack(0, multiple=True, requeue=True)
        self.come.clear()
        channel, self.channel = self.channel, None
        self._fetcher.free(self, channel)

    def _get(self) -> None:
        self._asked = time.monotonic()
        self.channel.basic_get(self.name, self.note)

    def _ack(self) -> None:
        if self._done > self._acked:
            self._acked = self._done
            self.channel.basic_ack(self._done, multiple=True)
