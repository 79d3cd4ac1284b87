"""One turn of one user's queue: run what is in it in order, record what comes of it, leave it where others go on."""

import itertools
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol, cast

import structlog
from django.conf import settings
from django.db import DEFAULT_DB_ALIAS, OperationalError, connection, connections
from django.db import Error as DatabaseError
from psycopg.errors import LockNotAvailable

from processing import handlers, metrics
from processing.broker.rabbitmq import BrokerUnavailable, Delivery, QueueGone, QueueUnavailable, queue_name
from processing.broker.reader import Reader
from processing.handlers import (
    HandlerRequest,
    NoHandler,
    TimeLimitExceeded,
    TransactionLeftBroken,
    TransactionLeftOpen,
)
from processing.worker.outcomes import Verdict, raised, returned, without_running
from processing.worker.recorder import Recording
from processing.worker.shares import Shares
from processing.worker.watchdog import Renewal, Watch, raise_in
from project.postgresql.base import DatabaseWrapper
from project.postgresql.limits import of_handler, of_role
from queues import event_log
from queues.exceptions import FencedOut
from queues.kinds import Kind
from queues.lifecycle import outbox
from queues.lifecycle.lease import Lease, keep_beginning
from queues.notify.changes import changed
from queues.sql.statement import drop_open_transaction
from queues.states import QueueState
from queues.values import Next, Work

log = structlog.get_logger()

LARGEST_CLAIM = 256
FAST_SECONDS = 0.005  # a handler is fast if it takes less; how slow RabbitMQ and PostgreSQL are is none of its business
WORTH_CONSUMING = 4  # a shorter claim gets its messages one by one
ACK_DUPLICATES = 50  # messages that are passed over are acked by so many
LOCKED_SECONDS = 1.0  # a row that is locked is left alone by the watch for so long
UNINTERRUPTIBLE_SECONDS = 5.0  # a handler that goes on for so long after its time limit is given up with its process


@dataclass(slots=True)
class Running:
    """The attempt under way, as the watch sees it. `began` is on the monotonic clock."""

    work: Work
    kind: Kind
    request: HandlerRequest
    began: float
    started_at: datetime
    interrupted: bool = False

    @property
    def overrun(self) -> float:
        """Seconds beyond its kind's time limit; negative before."""
        return time.monotonic() - self.began - self.kind.time_limit


RECORDED = Verdict(None)  # an atomic handler's outcome is recorded with its own writes


class Line(Protocol):
    """Whose turn comes after this one, in the same thread."""

    def next(self) -> int | None:
        """The next queue, if this process may have it."""

    def keep(self, lease: Lease) -> None:
        """It was taken with the last record of this turn."""


class Turn:
    """What one worker thread does with one lease. The watch looks in from its own thread."""

    def __init__(
        self,
        lease: Lease,
        reader: Reader,
        watch: Watch,
        most: int,
        slow: Callable[[], None],
        line: Line | None,
        shares: Shares,
    ) -> None:
        self.lease = lease
        self.name = queue_name(lease.queue_id, lease.generation)
        self.reader = reader
        self.watch = watch
        self.most = most  # requests that it runs
        self.slow = slow  # called, again and again, while a handler takes long
        self.line = line  # whose turn is next in this thread
        self.shares = shares  # which part of the process's threads a kind may hold
        self.recording = Recording(lease)
        self.thread_id = threading.get_ident()
        self.began = time.monotonic()
        self.ran = 0
        self.handling = 0.0  # seconds that the handlers of this claim took
        self.behind = 0  # how many of this claim come after the one that runs
        self.narrowed = False  # the watch gave back what of the claim has not begun
        self.running: Running | None = None
        self.record_again = 0.0  # when the watch may try to, whom a locked row has refused
        self.tag = 0  # the last delivery that is over

    def __str__(self) -> str:
        return f"the turn of queue {self.lease.queue_id}"

    def run(self) -> None:
        """Run the turn to its end, and leave the queue where others can go on with it."""
        self.watch.add(self)
        metrics.TURNS.inc()
        metrics.BUSY_THREADS.inc()
        changed(self.lease.queue_id)
        try:
            self._run_claims()
        except FencedOut:
            metrics.FENCED_OUT.inc()
            log.warning("fenced out: somebody else has the queue, nothing was recorded", queue=self.lease.queue_id)
            self.reader.close()
        except QueueUnavailable as error:
            log.warning("RabbitMQ has no word of a queue; it gets another name", name=self.name, error=str(error))
            self.reader.close()
            self._rename()
        except BrokerUnavailable as error:
            log.warning("a turn lost RabbitMQ", queue=self.lease.queue_id, error=str(error))
            self.reader.close()
            self._give_back(delay=0.5)
        except BaseException:
            self.reader.close()  # it may still consume this queue, and the next turn is another's
            raise
        finally:
            metrics.BUSY_THREADS.dec()
            self.watch.remove(self)

    @property
    def wants_token(self) -> bool:
        """Whether there is more to do, after others had their turn."""
        return self.lease.state == QueueState.READY and not self.lease.paused

    def _run_claims(self) -> None:
        """Claim one request, then many while they are fast; record each claim together, then ack it together."""
        head = self.lease.head if self.lease.published_seq > self.lease.done_seq else None
        if self.lease.careful:
            self.recording.record(QueueState.DRAINING, 1)  # claimed from now on: it may have changed
            if self.lease.paused:
                self.recording.record(QueueState.READY)
                return
            head = None
        claim = [head] if head else self.lease.claimed(1)
        followed = False
        while self.lease.state == QueueState.DRAINING:
            before = self.ran
            then, delay = self._run_claim(claim)
            if self.lease.state != QueueState.DRAINING:
                break  # repaired: it is published again
            size = self._next_size(self.ran - before)
            if then == QueueState.DRAINING and (self._is_over() or not claim):
                then = QueueState.READY
            followed = self._record_and_follow(then, size, delay)
            self._ack(settle=not followed)
            if self.lease.state == QueueState.DRAINING and self.lease.paused:
                self.recording.record(QueueState.READY)
            elif self.lease.state == QueueState.DRAINING:
                claim = self.lease.claimed(size)
        self._ack(settle=False)
        self.reader.give_back()
        if not followed:
            self.reader.settle()

    def _record_and_follow(self, then: Next, size: int, delay: float | None) -> bool:
        """Record; if this may be the end of the turn, take the next queue with it. Whether it was taken."""
        more = self.lease.published_seq > self.lease.done_seq + self.recording.passed
        ends = then != QueueState.DRAINING or not more
        followed = self.recording.record(then, size, delay, self.line.next() if self.line and ends else None)
        if self.line and followed:
            self.line.keep(followed)
        return followed is not None

    def _run_claim(self, claim: list[Work]) -> tuple[Next, float | None]:
        """Run the claimed requests in order, as far as they go. How the queue goes on, and after how many seconds."""
        self.narrowed, self.handling = False, 0.0
        for self.behind, work in zip(range(len(claim) - 1, -1, -1), claim, strict=True):
            if self.narrowed or (self.ran and self._is_over()):
                break
            message = self._message_of(work.seq, streaming=len(claim) >= WORTH_CONSUMING)
            if message is None:
                self._repair()
                break
            verdict = self._run_one(work)
            if verdict is not RECORDED:
                self.recording.over(verdict)
            if verdict.then != QueueState.DRAINING:
                return verdict.then, verdict.delay  # its message is not acked: it goes back to the head
            self.tag = message.tag
            if self.behind and self.recording.is_due():
                self.recording.record(QueueState.DRAINING, self.behind)
                self._ack()
                if self.lease.paused:
                    break
        return QueueState.DRAINING, None

    def _message_of(self, seq: int, streaming: bool) -> Delivery | None:
        """The message of that place; None when RabbitMQ has none.

        One further back is a duplicate; one further ahead came too early, and PostgreSQL still has it: passed over.
        """
        for passed_over in itertools.count(1):
            try:
                message = self.reader.consume(self.name, self._worth_fetching()) if streaming else None
                message = message or self.reader.get(self.name)
            except QueueGone:
                self.tag = 0
                return None
            if message is None or message.seq == seq:
                return message
            self.tag = message.tag
            if passed_over % ACK_DUPLICATES == 0:
                self._ack()  # however many there are: they are gone for good, the lease lives, more are fetched
                self.recording.renew(seq)
        raise AssertionError("counting never ends")

    def _repair(self) -> None:
        """RabbitMQ is empty though PostgreSQL, asked before the look, says otherwise: it lost messages."""
        if self.recording.passed:
            return  # recording these reads published_seq; then the next claim looks again
        if self.lease.republish():
            metrics.REPUBLICATIONS.inc()
            log.warning("RabbitMQ lost messages; they are published again", queue=self.lease.queue_id)
            self.lease.state = QueueState.IDLE

    def _rename(self) -> None:
        """Let go of the queue and have it published under another name. No attempt is counted."""
        try:
            self.recording.record(QueueState.READY)
        except FencedOut:
            metrics.FENCED_OUT.inc()
            return
        if outbox.rename([(self.lease.queue_id, self.lease.generation)]):
            metrics.QUEUES_RENAMED.labels("worker").inc()
            self.lease.state = QueueState.IDLE  # publishing wakes it, with a token

    def _run_one(self, work: Work) -> Verdict:
        """Run one request's handler, unless it was given up before."""
        self.ran += 1
        verdict = without_running(work, self._now())
        if verdict is not None:
            return verdict
        try:
            kind, function = handlers.find(work.kind, work.version)
        except NoHandler as missing:
            return raised(work, None, False, missing, self._began(work), self._now())
        request = HandlerRequest(
            work.id, self.lease.user_id, work.kind, work.version, work.seq, work.attempt + 1, work.trace,
            queue_id=self.lease.queue_id,
        )  # fmt: skip
        delay = self.shares.enter(kind)
        if delay is not None:
            return Verdict(None, QueueState.WAITING, delay)  # its kind holds its share of the threads
        try:
            return self._attempt(work, kind, function, request)
        finally:
            self.shares.leave(kind)

    def _attempt(self, work: Work, kind: Kind, function: handlers.Function, request: HandlerRequest) -> Verdict:
        event_log.started(self.lease, work)
        run = self._run_alone
        mine = cast("DatabaseWrapper", connections[DEFAULT_DB_ALIAS])
        if kind.atomic:
            run = self._run_atomic
            self.narrowed = True  # recording it by itself leaves nothing else claimed
            self.recording.record(QueueState.DRAINING, 1)
        started = self._began(work)
        try:
            began = time.monotonic()
            mine.wanted = of_handler(kind.time_limit)
            try:
                self.running = Running(work, kind, request, began, started)
                return run(self.running, function)
            finally:
                self._end_running()
                mine.wanted = of_role()
                self.handling += time.monotonic() - began
        except FencedOut:
            raise
        except BaseException as error:  # a handler may raise anything, SystemExit too: none of it may end this thread
            self._end_running()  # once more: a time limit may have come in the middle of it
            drop_open_transaction()
            return raised(work, kind, request.cancelled, error, started, self._now())

    def _began(self, work: Work) -> datetime:
        """When its attempt begins. The head's is the moment of its claim, as whoever looks at the queue is shown it."""
        return self.lease.since if work.seq == self.lease.done_seq + 1 else self._now()

    def _run_handler(self, running: Running, function: handlers.Function) -> Verdict:
        result = handlers.call(function, running.kind, running.request, running.work.payload)
        return returned(running.work, running.request, result, running.started_at, self._now())

    def _run_alone(self, running: Running, function: handlers.Function) -> Verdict:
        """Run the handler; a transaction that it leaves open would swallow every record after it."""
        verdict = self._run_handler(running, function)
        self._end_running()
        if drop_open_transaction():
            raise TransactionLeftOpen
        return self._record_with_next(running.request, verdict) if running.request.next_requests else verdict

    def _record_with_next(self, request: HandlerRequest, verdict: Verdict) -> Verdict:
        """Accept what the handler submitted in the transaction that records it: exactly once."""
        self.narrowed = True
        self.recording.record(QueueState.DRAINING, 1)
        with self.recording.atomically():
            request.accept_next()
            self.recording.over(verdict)
        return RECORDED

    def _run_atomic(self, running: Running, function: handlers.Function) -> Verdict:
        """Run the handler inside the transaction that records it: its own writes happen exactly once."""
        with self.recording.atomically():
            try:
                verdict = self._run_handler(running, function)
            finally:
                self._end_running()
            if connection.needs_rollback:
                raise TransactionLeftBroken
            running.request.accept_next()
            self.recording.over(verdict)
        return RECORDED

    def _ack(self, settle: bool = True) -> None:
        """Ack after the commit: a redelivery meets the sequence check. Where a turn follows, together with its own."""
        tag, self.tag = self.tag, 0
        if tag:
            self.reader.done(tag)
        if settle:
            self.reader.settle()

    def _next_size(self, ran: int) -> int:
        """How many to claim next: many while they are fast, one when they are slow or a worker died here."""
        if self.lease.careful or self.lease.done_seq + self.recording.passed < self.lease.careful_to:
            return 1
        if not ran or self.handling > ran * FAST_SECONDS:
            return 1
        return max(1, min(LARGEST_CLAIM, self.most - self.ran))

    def _worth_fetching(self) -> int:
        """How many messages to have ahead: room for any claim of this turn, and for duplicates before it."""
        waiting = self.lease.published_seq - self.lease.done_seq
        return max(2 * ACK_DUPLICATES, min(max(waiting, LARGEST_CLAIM), self.most - self.ran))

    def _is_over(self) -> bool:
        """Whether others come first now."""
        return (
            self.ran >= self.most
            or time.monotonic() - self.began >= settings.ENV.turn_seconds
            or self.watch.stopping.is_set()
        )

    def _give_back(self, delay: float) -> None:
        """Let others have the queue after `delay` seconds; the dispatcher wakes it. No attempt is counted."""
        try:
            self.recording.record(QueueState.WAITING, delay=delay)
        except FencedOut:
            metrics.FENCED_OUT.inc()
            log.warning("fenced out while giving a queue back", queue=self.lease.queue_id)

    def _now(self) -> datetime:
        """The database's clock, carried on by this machine's monotonic one: a wrong clock here changes nothing."""
        return self.lease.taken_at + timedelta(seconds=time.monotonic() - self.lease.received)

    def _end_running(self) -> None:
        """The handler is over; a time limit's exception that has not arrived yet arrives here, and harms nobody."""
        with self.recording.lock:
            interrupted = self.running is not None and self.running.interrupted
            self.running = None
        if interrupted:
            # Not taken back: CPython 3.11 would go on looking for it, for ever where a tracer is on.
            with suppress(TimeLimitExceeded):
                for _ in range(10):  # it arrives at the latest when a loop begins again
                    continue

    # What the watch does, in its own thread.

    def look_after(self) -> None:
        """Record what a slow handler keeps waiting, and claim nothing else beside it; enforce the time limit. Raises
        FencedOut.
        """
        if self._is_fast():
            return  # not worth the lock that the worker's thread takes again and again
        slow = not self._is_fast(settings.ENV.record_after_ms / 1000)
        if slow:
            self.slow()
        if not self.recording.lock.acquire(blocking=False):
            return  # it is recording
        try:
            if self.running is None or self._is_fast():
                return
            if time.monotonic() >= self.record_again and (
                self.recording.is_due() or (slow and self.behind and not self.narrowed)
            ):
                self.narrowed = True
                self._record_beside(self.running.started_at)
            if self.running.overrun >= 0 and not self.running.interrupted:
                self.running.interrupted = True
                raise_in(self.thread_id, TimeLimitExceeded)
            if self.running.overrun >= UNINTERRUPTIBLE_SECONDS:
                self._give_up(self.running)
        finally:
            self.recording.lock.release()

    def renewal(self) -> Renewal | None:
        """The lease, where a handler has run for a while and it is time to renew it."""
        running = self.running
        if self._is_fast() or running is None or self.recording.closed or not self.recording.is_to_renew():
            return None
        request = running.request
        return Renewal(self.lease.queue_id, self.lease.fence, request.sequence, request.ask_to_stop)

    def fenced_out(self) -> None:
        """Called by the watch. The turn itself finds out when it records."""
        log.warning("the watch was fenced out", of=str(self))
        self.watch.remove(self)

    def _record_beside(self, began: datetime) -> None:
        """In the watch's thread, which waits for nobody's row: one that is locked is tried again a little later."""
        try:
            self.recording.record(QueueState.DRAINING, 1, began=began)
        except OperationalError as error:
            if not isinstance(error.__cause__, LockNotAvailable):
                raise
            self.record_again = time.monotonic() + LOCKED_SECONDS

    def _is_fast(self, seconds: float = FAST_SECONDS) -> bool:
        """Whether no handler runs, or one that began less than `seconds` ago."""
        running = self.running
        return running is None or time.monotonic() - running.began < seconds

    def _give_up(self, running: Running) -> None:
        """The handler hangs where nothing interrupts it: count the attempt, let others go on, end this process."""
        log.error(
            "a handler cannot be interrupted; its process ends", queue=self.lease.queue_id, kind=running.kind.name
        )
        overrun = TimeLimitExceeded(
            f"The handler overran its time limit of {running.kind.time_limit:g} s and could not be interrupted."
        )
        hanging = sys._current_frames().get(self.thread_id)
        verdict = raised(
            running.work, running.kind, running.request.cancelled, overrun, running.started_at, self._now(), hanging
        )
        before = self.recording.passed, list(self.recording.outcomes)
        self.recording.over(verdict)
        try:
            if verdict.then == QueueState.DRAINING:
                self.recording.record(QueueState.WAITING, delay=0)
            else:
                self.recording.record(verdict.then, delay=verdict.delay)
        except DatabaseError as error:
            self.recording.passed, self.recording.outcomes = before  # it is given up at a later look, once
            if isinstance(error.__cause__, LockNotAvailable):
                return
            raise
        self.recording.closed = True
        metrics.HANDLERS_GIVEN_UP.labels(running.kind.name).inc()
        self.watch.retire(self)

    def abandon(self) -> None:
        """The process ends before the handler does: give the queue back at once, with no attempt counted."""
        with self.recording.lock:
            if self.running is not None:
                keep_beginning(self.running.work.id, self.running.started_at)
            self._give_back(delay=0)
