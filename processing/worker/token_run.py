"""One drain token may name many queues, when many wake at once: they share what a message costs Dramatiq.

Nobody in it waits for a slow one before them: once a turn takes long, the watch passes the rest on, token by token.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from queue import SimpleQueue

import structlog
from django.db import OperationalError

from processing.broker.rabbitmq import BrokerUnavailable
from processing.worker import drain
from processing.worker.drain import send_token, watch
from queues.lifecycle.lease import Lease
from queues.sql.statement import left_out

log = structlog.get_logger()

SLOW_SECONDS = 0.25  # longer than a turn of fast handlers takes, however busy the machine is


class Bundle:
    """The queues of one token; a worker thread takes them one by one, the watch looks in from its own thread.

    A turn asks for the `next` queue and takes it with its last record; the lease is kept here until its own turn.
    """

    def __init__(self, queue_ids: Iterable[int]) -> None:
        self.rest = deque(queue_ids)
        self.following: Lease | None = None  # of a queue of which nothing has begun
        self.lock = threading.Lock()
        self.turn_began = time.monotonic()

    def __str__(self) -> str:
        return f"a bundle of which {len(self.rest)} queues are left"

    def drain(self) -> None:
        """Run one turn of each, as far as they are not passed on."""
        if len(self.rest) > 1:
            watch.add(self)
        try:
            while self.following or self.rest:
                if lease := self._take():
                    drain.run(lease, slow=self.pass_rest_on, line=self)
                if watch.stopping.is_set():
                    break
        finally:
            with drain.logged():
                self.abandon()  # what is left, because the process ends, or a turn had a defect
            watch.remove(self)
            drain.settle()

    def _take(self) -> Lease | None:
        with self.lock:
            self.turn_began = time.monotonic()
            lease, self.following = self.following, None
            queue_id = self.rest.popleft() if self.rest and not lease else None
        return lease if queue_id is None else drain.take(queue_id)

    def next(self) -> int | None:
        """The queue that is next, if this process may have it."""
        with self.lock:
            return self.rest[0] if self.rest and watch.takes_turns else None

    def keep(self, lease: Lease) -> None:
        """The `next` queue was taken; the turn before it still has to say goodbye to RabbitMQ."""
        with self.lock:
            self.turn_began = time.monotonic()
            if watch.know(lease):
                self.following = lease
            if self.rest and self.rest[0] == lease.queue_id:
                self.rest.popleft()

    def look_after(self) -> None:
        """Called by the watch: others go on with the rest when a turn takes long, whatever it waits for."""
        if time.monotonic() - self.turn_began >= SLOW_SECONDS:
            self.pass_rest_on()

    def renewal(self) -> None:
        """Nothing of its rest is leased for long."""

    def fenced_out(self) -> None:
        """Never: nothing is renewed."""

    def pass_rest_on(self) -> None:
        """Also called by the watch, as soon as a handler is slow. Others go on with the rest.

        In a thread of its own: RabbitMQ may hang, and every lease of the process would run out with the watch.
        """
        self._pass_on(pass_on_later)

    def abandon(self) -> None:
        """Pass the rest on. A token that does not get through is sent again by the sweep."""
        self._pass_on(pass_on)

    def _pass_on(self, send: Callable[[Iterable[int]], None]) -> None:
        with self.lock:
            rest, self.rest = self.rest, deque()
            lease, self.following = self.following, None
        if rest:
            send(rest)
        if lease:
            try:
                drain.let_go(lease)
            except OperationalError as error:
                if not left_out(error):
                    raise
                log.warning("a queue is let go later: its row is locked", queue=lease.queue_id)
                return  # nobody here knows of it any more, so it is given back with the others of that sort
            send([lease.queue_id])


def pass_on(queue_ids: Iterable[int]) -> None:
    """Have other workers drain these queues."""
    try:
        for queue_id in queue_ids:
            send_token(queue_id)
    except BrokerUnavailable as error:
        log.warning("tokens could not be passed on", error=str(error))


def pass_on_later(queue_ids: Iterable[int]) -> None:
    """The same, without waiting for RabbitMQ. Called by the watch alone."""
    _passing_on.put(queue_ids)


class PassingOn:
    """A thread that passes on what the watch gives it; it is made when it is first needed."""

    def __init__(self) -> None:
        self._rests: SimpleQueue[Iterable[int]] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def put(self, queue_ids: Iterable[int]) -> None:
        """Never waits. Called by the watch alone."""
        self._rests.put(queue_ids)
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._run, name="passing on", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while True:
            pass_on(self._rests.get())


_passing_on = PassingOn()
