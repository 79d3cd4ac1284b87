"""One drain token may name many queues, when many wake at once: they share what a message costs Dramatiq.

Nobody in it waits for a slow one before them: once a turn takes long, the watch passes the rest on, token by token.
"""

import threading
import time
from collections import deque
from collections.abc import Iterable
from queue import SimpleQueue

import structlog

from processing.drain import drain_queue, send_token, watch
from processing.rabbitmq import BrokerUnavailable

log = structlog.get_logger()

SLOW_SECONDS = 0.25  # longer than a turn of fast handlers takes, however busy the machine is


class Bundle:
    """The queues of one token; a worker thread takes them one by one, the watch looks in from its own thread."""

    def __init__(self, queue_ids: Iterable[int]) -> None:
        self.rest = deque(queue_ids)
        self.lock = threading.Lock()
        self.turn_began = time.monotonic()

    def __str__(self) -> str:
        return f"a bundle of which {len(self.rest)} queues are left"

    def drain(self) -> None:
        """Run one turn of each, as far as they are not passed on."""
        if len(self.rest) > 1:
            watch.add(self)
        try:
            while (queue_id := self._next()) is not None:
                drain_queue(queue_id, slow=self.pass_rest_on)
                if watch.stopping.is_set():
                    break
        finally:
            watch.remove(self)
            self.abandon()  # what is left, because the process ends, or a turn had a defect

    def _next(self) -> int | None:
        with self.lock:
            self.turn_began = time.monotonic()
            return self.rest.popleft() if self.rest else None

    def look_after(self) -> None:
        """Called by the watch: others go on with the rest when a turn takes long, whatever it waits for."""
        if time.monotonic() - self.turn_began >= SLOW_SECONDS:
            self.pass_rest_on()

    def pass_rest_on(self) -> None:
        """Also called by the watch, as soon as a handler is slow. Others go on with the rest.

        In a thread of its own: RabbitMQ may hang, and every lease of the process would run out with the watch.
        """
        if self.rest:
            _passing_on.put(self._take_rest())

    def abandon(self) -> None:
        """Pass the rest on. A token that does not get through is sent again by the sweep."""
        pass_on(self._take_rest())

    def _take_rest(self) -> deque[int]:
        with self.lock:
            rest, self.rest = self.rest, deque()
        return rest


def pass_on(queue_ids: Iterable[int]) -> None:
    """Have other workers drain these queues."""
    try:
        for queue_id in queue_ids:
            send_token(queue_id)
    except BrokerUnavailable as error:
        log.warning("tokens could not be passed on", error=str(error))


class PassingOn:
    """A thread that passes on what the watch gives it; it is made when it is first needed."""

    def __init__(self) -> None:
        self._rests: SimpleQueue[deque[int]] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def put(self, queue_ids: deque[int]) -> None:
        """Never waits. Called by the watch alone."""
        self._rests.put(queue_ids)
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._run, name="passing on", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while True:
            pass_on(self._rests.get())


_passing_on = PassingOn()
