"""One turn of one user's queue: what is claimed of it runs in order, as its messages come."""

import time
from collections import deque
from contextlib import AbstractContextManager
from datetime import datetime
from functools import partial
from math import inf
from typing import Protocol

import structlog
from django.conf import settings

from processing import handlers, metrics
from processing.broker.errors import QueueGone
from processing.broker.pointers import Delivery, queue_name
from processing.broker.source import Source
from processing.handlers import Function, NoHandler
from processing.worker import paces
from processing.worker.attempt import RECORDED, Attempt, RunOfIt
from processing.worker.coroutines.attempt import CoroutineAttempt
from processing.worker.coroutines.run import CoroutineRun
from processing.worker.outcomes import Ending, raised, without_running
from processing.worker.recorder import AGAIN_SECONDS, Recording, Wanted
from processing.worker.shares import Shares
from processing.worker.watchdog import Watchdog
from queues.kinds import Kind
from queues.lifecycle.lease import Lease
from queues.lifecycle.permits import take
from queues.notify.changes import changed
from queues.notify.hints import work_waits
from queues.sql.definitions import FEW
from queues.states import QueueState
from queues.values import Next, Work

log = structlog.get_logger()

HANDED_OVER = Ending(None)  # its handler runs on the event loop, and its lease is not this turn's any more
ACK_DUPLICATES = 50  # messages that are passed over are acked by so many
HOLE_SECONDS = 5.0  # until a queue that lacks its head is looked at again


class RunOfMany(RunOfIt, Protocol):
    """What a turn needs of the run that it belongs to."""

    shares: Shares
    watch: Watchdog
    coroutines: CoroutineRun | None

    def record_if_due(self) -> None: ...

    def hand_over(self, turn: "Turn", attempt: CoroutineAttempt) -> None: ...

    def waits(self, turn: "Turn") -> AbstractContextManager[None]: ...


class Turn:
    """What a run of a token does with one lease."""

    def __init__(self, run: RunOfMany, lease: Lease, most: int) -> None:
        self.run = run
        self.lease = lease
        self.name = queue_name(lease.queue_id, lease.generation)
        self.most = most  # requests that it runs
        self.recording = Recording(lease, partial(run.waits, self))
        self.source: Source | None = None
        self.claim: deque[Work] = deque()
        self.then: Next | None = None  # how the queue goes on, once its claim is over
        self.delay: float | None = None
        self.until = time.monotonic() + settings.ENV.turn_seconds
        self.ran = 0
        self.record_again = 0.0  # when one whose row is locked may be recorded; 0: it was not locked
        self._locked_since = 0.0
        self._ended = 0.0  # when its claim was over
        self.handling = 0.0  # seconds that the handlers of this claim took ..
        self._ran_before = 0  # .. and how many had run before it
        self._passed_over = 0
        self._asked_for_permit = False  # since the last record
        self._message: Delivery | None = None  # that names the next request, and maybe more
        self._tag = 0  # of the last one that is over

    @property
    def ahead(self) -> int:
        """Of how many requests to have messages: of this turn's, and duplicates before them. An async head ends it."""
        if self.claim and self.run.coroutines is not None and self.run.coroutines.takes(self.claim[0]):
            return 1
        waiting = min(self.lease.waiting, self.most - self.ran)
        return waiting if waiting < 4 else max(2 * ACK_DUPLICATES, waiting)

    @property
    def awaits(self) -> bool:
        """Whether it goes on as soon as its next message is here."""
        return self.then is None and not self.record_again

    def read(self, source: Source) -> None:
        """Its messages come from there now. Delivery tags of an earlier source mean nothing to this one."""
        self.source, self._tag, self._message = source, 0, None

    def begin(self, claim: list[Work]) -> None:
        """These are claimed, and run next."""
        self.claim.extend(claim)
        self.then, self.delay = None, None
        if self.source is not None:
            self.source.ask_again()
        self.handling, self._ran_before = 0.0, self.ran
        if not claim and self.lease.waiting:
            log.error("its counters name requests that are not there: manage.py doctor", queue=self.lease.queue_id)
            self.end_claim(QueueState.WAITING, HOLE_SECONDS)
        elif not claim:
            self.end_claim(QueueState.READY)

    def run_what_came(self) -> bool:
        """Run what is claimed, in order, as far as its messages have come. Whether it got any further.

        Raises QueueUnavailable, FencedOut and BrokerUnavailable.
        """
        before = self.ran
        while self.awaits and self.claim and not (self.ran > self._ran_before and self.has_had_its_time()):
            if not self._has_message(self.claim[0].seq):
                return self.then is not None or self.ran > before
            work = self.claim.popleft()
            ending = self._run_one(work)
            if ending is HANDED_OVER:
                return True
            if ending is not RECORDED:
                with self.run.lock:  # a process that stops records from its main thread
                    self.recording.over(ending)
            if ending.then != QueueState.DRAINING:
                self.end_claim(ending.then, ending.delay)  # its message is not acked: it goes back to the head
                return True
            if self._message is not None and self._message.last <= work.seq:
                self._tag, self._message = self._message.tag, None
            if self.claim:
                self.run.record_if_due()
        if self.awaits:
            self.end_claim(QueueState.READY if self.has_had_its_time() else QueueState.DRAINING)
        return True

    def _has_message(self, seq: int) -> bool:
        """Whether a message of that place is here. If RabbitMQ has none, it is published again.

        Passed over are duplicates; what came too early, which PostgreSQL still has; and what names more than is
        published: whoever sent that was overtaken, or a backup was restored since.
        """
        assert self.source is not None  # noqa: S101  (opened with the run)
        try:
            while message := self._message or self.source.take():
                self._message = message if message.first <= seq <= message.last <= self.lease.published_seq else None
                if self._message:
                    return True
                self.source.done(message.tag)
                self._passed_over += 1
                if self._passed_over % ACK_DUPLICATES == 0:  # however many there are: they go, and the lease lives
                    self.source.settle()
                    self.recording.renew(seq)
        except QueueGone:
            self._tag = 0
            self._repair()
            return False
        if self.source.empty:
            self._repair()
        return False

    def _repair(self) -> None:
        """RabbitMQ is empty though PostgreSQL, asked before the look, says otherwise: it lost messages."""
        if self.recording.passed:
            self.end_claim(QueueState.DRAINING)  # recording these reads published_seq; then the next claim looks again
            return
        if self.lease.republish():
            metrics.REPUBLICATIONS.inc()
            log.warning("RabbitMQ lost messages; they are published again", queue=self.lease.queue_id)
            self.lease.state = QueueState.IDLE
        self.end_claim(QueueState.DRAINING)

    def _run_one(self, work: Work) -> Ending:
        """Run one request's handler, unless it was given up before."""
        self.ran += 1
        ending = without_running(work, self.lease.now)
        if ending is not None:
            return ending
        try:
            kind, function = handlers.find(work.kind, work.version)
        except NoHandler as missing:
            return raised(work, None, False, missing, self.began_at(work), self.lease.now())
        on_loop = self.run.coroutines is not None and self.run.coroutines.takes(work)
        shares = self.run.coroutines.shares if self.run.coroutines and on_loop else self.run.shares
        delay = shares.enter(kind)
        if delay is not None:
            return Ending(None, QueueState.WAITING, delay)  # its kind holds its share
        try:
            if work.limited:
                self._asked_for_permit = True
                delay = take(self.lease.queue_id, self.lease.fence, work.seq, work.kind)
                if delay is not None:
                    return Ending(None, QueueState.WAITING, delay)  # until it is called
            ending = self._hand_over(work, kind, function) if on_loop else Attempt(self, work, kind, function).run()
            return ending
        finally:
            if ending is not HANDED_OVER:
                shares.leave(kind)

    def _hand_over(self, work: Work, kind: Kind, function: Function) -> Ending:
        """Have an `async def` run beside all threads, alone claimed."""
        try:
            value = handlers.value_of(kind, work.payload)
        except Exception:
            return Attempt(self, work, kind, function).run()  # where it fails in the same way
        if self.claim or self.recording.passed:
            self.claim.clear()
            self.recording.record(QueueState.DRAINING, 1)
            self.recorded()
        self.run.hand_over(self, CoroutineAttempt(self.lease, work, kind, function, value, self.began_at(work)))
        return HANDED_OVER

    def began_at(self, work: Work) -> datetime:
        """When its attempt begins. The head's is the moment of its claim, as whoever looks at the queue is shown it."""
        return self.lease.since if work.seq == self.lease.done_seq + 1 else self.lease.now()

    def end_claim(self, then: Next, delay: float | None = None) -> None:
        """Nothing else of it runs."""
        self.claim.clear()
        self.then, self.delay, self._ended = then, delay, time.monotonic()

    def has_had_its_time(self) -> bool:
        """Whether others come first now."""
        return self.ran >= self.most or time.monotonic() >= self.until or self.run.watch.stopping.is_set()

    # How it is recorded, with others.

    @property
    def is_pending(self) -> bool:
        """Whether there is something to record."""
        if self.record_again and time.monotonic() < self.record_again:
            return False
        return self.then is not None or self.recording.passed > 0

    @property
    def due_at(self) -> float:
        """When that has waited for as long as it may, on the monotonic clock."""
        if not self.is_pending:
            return inf
        since = self.recording.oldest if self.recording.passed else self._ended
        return (since if self.then is None else min(since, self._ended)) + settings.ENV.record_after_ms / 1000

    def wanted(self) -> Wanted:
        """What is to be recorded of it, and how it goes on."""
        if self.then is None:
            return Wanted(self.recording, QueueState.DRAINING, max(1, len(self.claim)))
        claim = self._next_size() if self.then == QueueState.DRAINING else 0
        is_little = min(claim, self.lease.waiting - self.recording.passed) <= FEW
        return Wanted(self.recording, self.then, claim, self.delay, along=claim if is_little else 0)

    def leaving(self, then: Next, delay: float | None = None) -> Wanted:
        """The same, but it ends here: nothing else of it runs, whatever becomes of the record."""
        if self.then in (None, QueueState.DRAINING, QueueState.READY):
            self.end_claim(then, delay)
        return self.wanted()

    def try_again(self) -> bool:
        """Its row is locked. False: that it has been for as long as its lease."""
        now = time.monotonic()
        self._locked_since = self._locked_since or now
        self.record_again = now + AGAIN_SECONDS
        return now - self._locked_since < settings.ENV.lease_seconds

    def _next_size(self) -> int:
        """How many to claim next: one where a worker died, many if fast, else those that are recorded in time.

        One also where nothing is to be recorded: an atomic handler was, and would give up what is claimed beside it.
        """
        ran = self.ran - self._ran_before
        if self.lease.careful or not ran or not self.recording.passed:
            return 1
        return max(1, min(paces.claim_of(self.handling / ran), self.most - self.ran))

    def recorded(self) -> None:
        """Ack after the commit: a redelivery meets the sequence check."""
        self.record_again = self._locked_since = 0.0
        self.tell_of_permits()
        self._asked_for_permit = False
        if self.source is not None and self._tag:
            self.source.done(self._tag)
            self.source.settle()

    def tell_of_permits(self) -> None:
        """There may be one for others now, and this queue may be held back."""
        if self._asked_for_permit:
            work_waits()
            changed(self.lease.queue_id)

    @property
    def is_over(self) -> bool:
        """Whether somebody else may have the queue by now, or nobody needs it."""
        return self.lease.state != QueueState.DRAINING

    @property
    def wants_token(self) -> bool:
        """Whether there is more to do, after others had their turn."""
        return self.lease.state == QueueState.READY and not self.lease.paused
