"""A worker thread's way to read many users' queues at once, each on a channel of its own of one connection.

What is asked of one queue waits for no other: all questions are put at once, and what comes is run while the rest is on
its way. A queue that is silent or refused concerns nobody else. Errors are those of processing/broker/rabbitmq.py.
"""

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

from pika import spec
from pika.exceptions import AMQPError

from processing.broker.errors import BrokerUnavailable
from processing.broker.rabbitmq import ANSWER_SECONDS, Connection, as_unavailable
from processing.broker.source import Source


class Fetcher(Connection):
    """The connection, for one thread; while that runs a handler another may close sources of it."""

    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.RLock()
        self._free: list[Any] = []
        self._sources: dict[int, Source] = {}  # by the number of the channel
        self._closing: set[Source] = set()
        self._silent = False  # RabbitMQ owes one of its channels an answer for ever

    def open_sources(self, wanted: Iterable[tuple[str, int]]) -> list[Source]:
        """Begin to read these queues, messages of about so many requests ahead. Raises BrokerUnavailable."""
        with self.lock, as_unavailable():
            link = self.open()
            sources = [Source(self, name, ahead) for name, ahead in wanted]
            for source in sources:
                if self._free:
                    self._give(source, self._free.pop())
                else:
                    link.new_channel(partial(self._prepare, source), self._note_closed)
            return sources

    def wait(self, sources: Sequence[Source], seconds: float) -> None:
        """Until one of them has `moved`, for `seconds` at the most. Raises BrokerUnavailable.

        One of which RabbitMQ has no word in time has an error then.
        """
        with self.lock:
            self._serve(lambda: any(source.moved for source in sources), seconds)
            now = time.monotonic()
            for source in sources:
                if source.is_overdue(now):
                    self._give_up(source)

    def settle(self) -> None:
        """Until RabbitMQ has heard what is done, and nothing is under way. Raises BrokerUnavailable."""
        with self.lock:
            if self._link is None:
                return
            self._serve(lambda: not self._closing, ANSWER_SECONDS)
            if self._closing:
                self.close()  # all that is not acked goes back to its place
                return
            with as_unavailable():
                self._link.flush(ANSWER_SECONDS)
            if self._silent and not self._sources:
                self.close()

    def close(self) -> None:
        with self.lock:
            for source in self._sources.values():
                source.channel, source.error = None, BrokerUnavailable("the connection was closed")
            self._free.clear()
            self._sources.clear()
            self._closing.clear()
            self._silent = False
            super().close()

    def close_source(self, source: Source) -> None:
        """Called by the source."""
        with self.lock:
            source.closed = True
            if source.channel is not None and self._sources.get(source.channel.channel_number) is source:
                self._closing.add(source)
                with as_unavailable():
                    if source.end():
                        source.let_go()

    def free(self, source: Source, channel: Any) -> None:
        """Called by the source, which is done with the channel."""
        self._closing.discard(source)
        self._sources.pop(channel.channel_number, None)
        self._free.append(channel)

    def _prepare(self, source: Source, channel: Any) -> None:
        channel.add_callback(partial(self._note_empty, channel.channel_number), [spec.Basic.GetEmpty], one_shot=False)
        channel.add_on_cancel_callback(partial(self._note_cancelled, channel.channel_number))
        if source.closed:
            self._free.append(channel)
        else:
            self._give(source, channel)

    def _give(self, source: Source, channel: Any) -> None:
        self._sources[channel.channel_number] = source
        source.begin(channel)

    def _serve(self, done: Callable[[], bool], seconds: float) -> None:
        with as_unavailable():
            if self._link is None:
                raise BrokerUnavailable("the connection was closed")
            self._link.serve(done, seconds)

    def _give_up(self, source: Source) -> None:
        """RabbitMQ has no word of it. If it has none of a new channel either, it is not the queue's fault."""
        assert self._link is not None  # noqa: S101  (served)
        with as_unavailable():
            self._link.channel(ANSWER_SECONDS).close()
        if source.channel is not None:
            self._sources.pop(source.channel.channel_number, None)
        self._silent = True
        source.note_error(AMQPError(f"no answer for {ANSWER_SECONDS:.1f} s"))

    def _note_closed(self, channel: Any, reason: BaseException) -> None:
        source = self._sources.pop(channel.channel_number, None)
        if source is not None:
            self._closing.discard(source)
            source.note_error(reason)

    def _note_empty(self, number: int, _frame: Any) -> None:
        if (source := self._sources.get(number)) is not None:
            source.note_empty()

    def _note_cancelled(self, number: int, _frame: Any) -> None:
        if (source := self._sources.get(number)) is not None:
            source.note_cancelled()
