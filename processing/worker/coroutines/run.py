"""The `async def` handlers that run in this process, whosever they are: many, and they hold no worker thread.

A worker thread leases a queue, meets its head's pointer, gives that back to its place, and leaves the lease to this.
Once the request is recorded the pointer is a duplicate, which the queue's next turn acks. Nothing here waits for
RabbitMQ. What a thread does to an attempt depends on its `verdict`: the watch deals with those that have none yet, the
recorder with the others.
"""

import asyncio
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from types import FrameType

import structlog
from django.conf import settings
from django.db import DatabaseError, InterfaceError, OperationalError, connection

from processing import metrics
from processing.broker import token_sender
from processing.coroutines import event_loop, running_now
from processing.handlers import TimeLimitExceeded
from processing.worker import recorder
from processing.worker.coroutines.attempt import CoroutineAttempt
from processing.worker.recorder import AGAIN_SECONDS, LeftOut, Recording, Refused, Wanted
from processing.worker.shares import Shares
from processing.worker.watchdog import (
    ABANDON_SECONDS,
    GONE_SECONDS,
    TICK_SECONDS,
    UNINTERRUPTIBLE_SECONDS,
    Renewal,
    Watch,
)
from queues.exceptions import FencedOut
from queues.lifecycle.lease import keep_beginning
from queues.notify.changes import changed
from queues.notify.hints import work_waits
from queues.sql.statement import drop_open_transaction, left_out
from queues.states import QueueState

log = structlog.get_logger()

LOOK_SECONDS = 0.25  # how often the watch looks who goes on after his time
REST_SECONDS = 60.0  # a recorder with nothing to do keeps its connection for so long
MOST_TOGETHER = 64  # are recorded with one statement


class CoroutineRun:
    """Watched as a token's run is."""

    def __init__(self, watch: Watch) -> None:
        self.watch = watch
        self.shares = Shares()
        self.shares.set_places(settings.ENV.async_handlers)
        self._lock = threading.Lock()
        self._attempts: set[CoroutineAttempt] = set()
        self._telling = 0  # jobs that still send tokens of ours
        self._over: SimpleQueue[CoroutineAttempt] = SimpleQueue()
        self._looked = self._asked = 0.0
        self._answered = True
        self._abandoned = False
        self._recorder: threading.Thread | None = None

    def __str__(self) -> str:
        return f"{len(self._attempts)} async handlers"

    def begin(self, attempt: CoroutineAttempt) -> None:
        """Run it; its caller has entered its kind's share. Raises FencedOut: the process ends, and nothing begins."""
        with self._lock:
            if self._abandoned:
                raise FencedOut
            self._attempts.add(attempt)
            self.watch.add(self)
            if self._recorder is None:
                self._recorder = threading.Thread(target=self._record_what_is_over, name="recorder", daemon=True)
                self._recorder.start()
        metrics.ASYNC_HANDLERS.inc()
        running = asyncio.run_coroutine_threadsafe(attempt.run(), event_loop())
        running.add_done_callback(lambda _: self._over.put(attempt))

    # Recording, in a thread of its own.

    def _record_what_is_over(self) -> None:
        """What is over meanwhile shares the next statement; who is alone waits for nobody."""
        waiting: list[CoroutineAttempt] = []
        while True:
            with suppress(Empty):
                waiting.append(self._over.get(timeout=AGAIN_SECONDS if waiting else REST_SECONDS))
                while len(waiting) < MOST_TOGETHER:
                    waiting.append(self._over.get_nowait())
            if not waiting:
                connection.close()
                if self._ends():
                    return
            now = time.monotonic()
            due = [attempt for attempt in waiting if attempt.record_again <= now]
            locked = [attempt for attempt in waiting if attempt.record_again > now]
            waiting = locked + self._record(due)

    def _ends(self) -> bool:
        """Whether nothing goes on, so that the next handler has a thread and a connection of its own made."""
        with self._lock:
            if self._attempts:
                return False
            self._recorder = None
            return True

    def _record(self, due: Sequence[CoroutineAttempt]) -> list[CoroutineAttempt]:
        """Write down what came of these. Those whose rows somebody has locked are to be tried again."""
        wanted: dict[Wanted, CoroutineAttempt] = {}
        locked: list[CoroutineAttempt] = []
        ready: list[int] = []
        try:
            for attempt in due:
                if attempt.recording.closed:
                    continue  # it was given up
                try:
                    wanted[_wanted(attempt)] = attempt
                except LeftOut:
                    locked.append(attempt)
                except FencedOut:
                    _say_fenced_out(attempt)
            patience = time.monotonic() + settings.ENV.lease_seconds
            refused = recorder.record(list(wanted), patience, shared=True)
            locked += [wanted[one] for one in refused.left_out]
            ready = _recorded(wanted, refused)
        except DatabaseError as error:
            log.warning("outcomes of async handlers are lost with PostgreSQL", error=str(error).strip())
            connection.close()
        except Exception:  # the others' go on
            log.exception("outcomes of async handlers cannot be recorded", queues=len(due))
        locked = [attempt for attempt in locked if attempt.try_again(settings.ENV.lease_seconds)]
        self._leave([attempt for attempt in due if attempt not in locked], ready)
        return locked

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
        running = [attempt for attempt in tuple(self._attempts) if attempt.verdict is None]
        late = [attempt for attempt in running if attempt.overrun >= UNINTERRUPTIBLE_SECONDS]
        if self._is_blocked(now) and late:
            task, hanging = running_now()
            self._give_up([attempt for attempt in running if attempt.task is task] or late, hanging)
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
        """These go on though they were cancelled, or block the loop: count the attempt, end this process."""
        for attempt in attempts:
            kind, lease = attempt.kind, attempt.lease
            log.error("an async handler cannot be interrupted; its process ends", queue=lease.queue_id, kind=kind.name)
            what = "blocked its event loop" if hanging else f"overran its time limit of {kind.time_limit:g} s"
            overrun = TimeLimitExceeded(f"The handler {what} and could not be interrupted.")
            verdict = attempt.failed(overrun, hanging)
            given_up = Recording(lease)
            given_up.over(verdict)
            then, delay = verdict.then, verdict.delay
            if then == QueueState.DRAINING:
                then, delay = QueueState.WAITING, 0
            try:
                given_up.record(then, delay=delay, wait=False)
            except (FencedOut, DatabaseError) as error:
                if isinstance(error, LeftOut):
                    continue  # at a later look
                if isinstance(error, OperationalError | InterfaceError):
                    raise
                log.warning("what was given up is not recorded", queue=lease.queue_id, error=str(error).strip())
            attempt.recording.closed = True
            metrics.HANDLERS_GIVEN_UP.labels(kind.name).inc()
            self._leave([attempt], [])
            self.watch.end_process()

    def renewals(self) -> Iterator[Renewal]:
        """The leases whose time has come to be renewed."""
        for attempt in tuple(self._attempts):
            if attempt.recording.is_to_renew():
                lease = attempt.lease
                yield Renewal(lease.queue_id, lease.fence, attempt.work.seq, attempt.request.ask_to_stop)

    def fenced_out(self, queue_id: int) -> None:
        """Called by the watch. What runs finds out when it is recorded."""

    def abandon(self) -> None:
        """The process ends before these do: give their queues back, with no attempt counted."""
        with self._lock:
            self._abandoned = True
        deadline = time.monotonic() + ABANDON_SECONDS
        while any(attempt.verdict for attempt in tuple(self._attempts)) and time.monotonic() < deadline:
            time.sleep(TICK_SECONDS)  # the recorder has them
        wanted = []
        for attempt in tuple(self._attempts):
            if attempt.verdict is None:
                attempt.recording.closed = True
                wanted.append(Wanted(Recording(attempt.lease), QueueState.WAITING, delay=GONE_SECONDS))
                with suppress(DatabaseError):
                    keep_beginning(attempt.work.id, attempt.started_at)
        with suppress(DatabaseError):
            recorder.record(wanted, 0)


def _wanted(attempt: CoroutineAttempt) -> Wanted:
    """How its queue goes on: others come first. Raises FencedOut, and LeftOut: somebody has a row locked."""
    assert attempt.verdict is not None  # noqa: S101  (it is over)
    if not attempt.noted:
        if attempt.submits:
            _accept_next(attempt)
        else:
            attempt.recording.over(attempt.verdict)
        attempt.noted = True
    then, delay = attempt.verdict.then, attempt.verdict.delay
    return Wanted(attempt.recording, QueueState.READY if then == QueueState.DRAINING else then, delay=delay)


def _accept_next(attempt: CoroutineAttempt) -> None:
    """Accept what the handler submitted in the transaction that records it: exactly once."""
    assert attempt.verdict is not None  # noqa: S101  (it is over)
    recording = attempt.recording
    try:
        with recording.atomically():
            attempt.request.accept_next()
            recording.over(attempt.verdict)
    except FencedOut:
        raise
    except Exception as error:
        drop_open_transaction()
        if left_out(error):
            recording.unsure, recording.doubtful = False, ()  # nothing was written, for sure
            raise LeftOut(str(error)) from error
        attempt.verdict = attempt.failed(error)
        recording.over(attempt.verdict)


def _recorded(wanted: dict[Wanted, CoroutineAttempt], refused: Refused) -> list[int]:
    """Tell what became of these records; which queues are ready for a token."""
    for one in refused.fenced_out:
        _say_fenced_out(wanted.pop(one))
    for one, error in refused.faulty:
        log.error("PostgreSQL refuses a record", queue=wanted.pop(one).lease.queue_id, error=str(error).strip())
    for one in refused.left_out:
        wanted.pop(one)
    if any(attempt.work.limited for attempt in wanted.values()):
        work_waits()  # there may be a permit for others now
    for attempt in wanted.values():
        if attempt.work.limited:
            changed(attempt.lease.queue_id)
    leases = [attempt.lease for attempt in wanted.values()]
    return [lease.queue_id for lease in leases if lease.state == QueueState.READY and not lease.paused]


def _say_fenced_out(attempt: CoroutineAttempt) -> None:
    metrics.FENCED_OUT.inc()
    log.warning("fenced out: somebody else has the queue, nothing was recorded", queue=attempt.lease.queue_id)
