"""The `async def` handlers that run in this process, whosever they are: many, and they hold no worker thread.

A worker thread leases a queue, meets its head's pointer, gives that back to its place, and leaves the lease to this.
Once all that the pointer names is recorded, the queue's next turn acks it. Nothing here waits for RabbitMQ. What a
thread does to an attempt depends on its `ending`: the watch deals with those that have none yet, the recorder
(recording.py) with the others.
"""

import threading
import time
from asyncio import CancelledError
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from types import FrameType

from django.conf import settings
from django.db import DatabaseError

from processing import handlers, metrics
from processing.broker import token_sender
from processing.coroutines import begin, event_loop, is_coroutine_function, running_now
from processing.handlers import NoHandler
from processing.worker import paces
from processing.worker.attempt import give_back, give_up
from processing.worker.coroutines.attempt import CoroutineAttempt
from processing.worker.coroutines.recording import OutcomeRecorder
from processing.worker.recorder import Recording, Wanted
from processing.worker.shares import Shares
from processing.worker.watchdog import (
    ABANDON_SECONDS,
    GONE_SECONDS,
    TICK_SECONDS,
    UNINTERRUPTIBLE_SECONDS,
    Renewal,
    Watchdog,
)
from queues.exceptions import FencedOut
from queues.lifecycle.lease import keep_beginnings
from queues.states import QueueState
from queues.values import Work

LOOK_SECONDS = 0.25  # how often the watch looks who goes on after his time


class CoroutineRun:
    """Watched as a token's run is."""

    def __init__(self, watch: Watchdog) -> None:
        self.watch = watch
        self.shares = Shares()
        self.shares.set_places(settings.ENV.async_handlers)
        self._lock = threading.Lock()
        self._attempts: set[CoroutineAttempt] = set()
        self._telling = 0  # jobs that still send tokens of ours
        self._outcomes = OutcomeRecorder(watch, self._leave)
        self._looked = self._asked = 0.0
        self._answered = True
        self._abandoned = False

    def __str__(self) -> str:
        return f"{len(self._attempts)} async handlers"

    def takes(self, work: Work) -> bool:
        """Whether its handler is an `async def` that holds no thread."""
        try:
            kind, function = handlers.find(work.kind, work.version)
        except NoHandler:
            return False
        return not kind.atomic and is_coroutine_function(function)

    def begin(self, attempt: CoroutineAttempt) -> None:
        """Run it; its caller has entered its kind's share. Raises FencedOut: the process ends, and nothing begins."""
        event_loop()  # raises what it does before anything has begun
        with self._lock:
            if self._abandoned:
                raise FencedOut
            self._attempts.add(attempt)
            self.watch.add(self, last=True)  # what is abandoned before may still hand over to it
        metrics.ASYNC_HANDLERS.inc()
        paces.note_thread(0.0)  # whatever it takes
        begin(attempt.run(), attempt.work.id).add_done_callback(lambda _: self._end(attempt))

    def _end(self, attempt: CoroutineAttempt) -> None:
        if attempt.ending is None:  # somebody cancelled it before its first step
            attempt.ending = attempt.failed(CancelledError())
        self._outcomes.add(attempt)

    def _leave(self, attempts: Sequence[CoroutineAttempt], ready: Sequence[int]) -> None:
        """Others may have these queues; those that are ready get a token, which may take RabbitMQ a while."""
        with self._lock:
            ours = [attempt for attempt in attempts if attempt in self._attempts]
            self._attempts.difference_update(ours)
            self._telling += bool(ready)
            self._rest()
        for attempt in ours:
            self.watch.forget(attempt.lease)
            self.shares.leave(attempt.kind)
        metrics.ASYNC_HANDLERS.dec(len(ours))
        if ready:
            token_sender.later(partial(self._pass_on, ready))

    def _pass_on(self, ready: Sequence[int]) -> None:
        try:
            token_sender.pass_on(ready)
        finally:
            with self._lock:
                self._telling -= 1
                self._rest()

    def _rest(self) -> None:
        """A process that stops waits for nothing of this, if nothing goes on. The caller holds the lock."""
        if not self._attempts and not self._telling:
            self.watch.remove(self)

    # What the watch asks, in its own thread.

    def check(self) -> None:
        """End the process, if a handler goes on long after its time limit."""
        now = time.monotonic()
        if now - self._looked < LOOK_SECONDS:
            return
        self._looked = now
        running = [attempt for attempt in tuple(self._attempts) if attempt.ending is None]
        late = [attempt for attempt in running if attempt.overrun >= UNINTERRUPTIBLE_SECONDS]
        if self._is_blocked(now) and late:
            request, hanging = running_now()
            blocking = [attempt for attempt in running if attempt.work.id == request]
            if blocking:
                self._give_up(blocking, hanging)
            else:  # nobody knows who does
                self._give_up(late)
        else:
            self._give_up([attempt for attempt in late if attempt.interrupted])

    def _is_blocked(self, now: float) -> bool:
        """Whether a handler keeps the loop from all others, and from their time limits."""
        if self._answered:
            self._answered, self._asked = False, now
            event_loop().call_soon_threadsafe(self._answer)
        return now - self._asked >= UNINTERRUPTIBLE_SECONDS

    def _answer(self) -> None:
        self._answered = True

    def _give_up(self, attempts: Sequence[CoroutineAttempt], hanging: FrameType | None = None) -> None:
        """These go on though they were cancelled, or one hangs there and blocks the loop: this process ends."""
        for attempt in attempts:
            overran = f"overran its time limit of {attempt.kind.time_limit:g} s"
            # Not with its own recording: that is the recorder's, should it end after all.
            if give_up(attempt, Recording(attempt.lease), "blocked its event loop" if hanging else overran, hanging):
                attempt.recording.closed = True
                self._leave([attempt], [])
                self.watch.end_process()

    def keep_time(self) -> None:
        """The event loop does."""

    def renewals(self) -> Iterator[Renewal]:
        """The leases whose time has come to be renewed."""
        for attempt in tuple(self._attempts):
            if attempt.recording.is_to_renew():
                lease = attempt.lease
                yield Renewal(lease.queue_id, lease.fence, attempt.work.seq, attempt.request.ask_to_stop)

    def fenced_out(self, queue_id: int) -> None:
        """Called by the watch. What runs finds out when it is recorded."""

    def abandon(self) -> None:
        """The process ends: give back the queues of those that go on, with no attempt counted; record the others."""
        with self._lock:
            self._abandoned = True
        running = [attempt for attempt in tuple(self._attempts) if attempt.ending is None]
        for attempt in running:
            attempt.recording.closed = True
        if running:
            with suppress(DatabaseError):
                keep_beginnings([(attempt.work.id, attempt.started_at) for attempt in running])
            wanted = [Wanted(Recording(attempt.lease), QueueState.WAITING, delay=GONE_SECONDS) for attempt in running]
            with suppress(DatabaseError):
                give_back(wanted)
        deadline = time.monotonic() + ABANDON_SECONDS
        while self._is_recording(running) and time.monotonic() < deadline:
            if not self._outcomes.record_due(TICK_SECONDS):
                time.sleep(TICK_SECONDS)

    def _is_recording(self, abandoned: Sequence[CoroutineAttempt]) -> bool:
        """Whether some that are over are not recorded yet, or RabbitMQ is still told of them."""
        with self._lock:
            return self._telling > 0 or not self._attempts.issubset(abandoned)
