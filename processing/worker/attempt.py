"""One attempt of one request: its handler is called, within its time, and what came of it is told."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from types import FrameType
from typing import Any, Protocol, cast

import structlog
from django.db import DEFAULT_DB_ALIAS, DatabaseError, InterfaceError, OperationalError, connection, connections

from processing import handlers, metrics
from processing.handlers import HandlerRequest, TimeLimitExceeded, TransactionLeftBroken, TransactionLeftOpen
from processing.interrupt import interrupt, let_it_arrive
from processing.worker import paces
from processing.worker.outcomes import Ending, raised, returned
from processing.worker.recorder import LeftOut, Recording, Refused, Wanted, record
from processing.worker.watchdog import TICK_SECONDS
from project.postgresql.base import DatabaseWrapper
from project.postgresql.limits import of_handler, of_role
from project.telemetry import tracing
from queues import event_log
from queues.exceptions import FencedOut
from queues.kinds import Kind
from queues.lifecycle.lease import Lease
from queues.sql.statement import drop_open_transaction
from queues.states import QueueState
from queues.values import Outcome, Work

log = structlog.get_logger()

LOCKED_SECONDS = 0.1  # a renewal locks all rows of the process for a moment
RECORDED = Ending(None)  # an atomic handler's outcome is recorded with its own writes


def request_fields(lease: Lease, work: Work) -> dict[str, Any]:
    """The fields of the HandlerRequest of its next attempt."""
    return {
        "id": work.id,
        "user_id": lease.user_id,
        "kind": work.kind,
        "version": work.version,
        "sequence": work.seq,
        "attempt": work.attempt + 1,
        "trace": work.trace,
        "may_have_run": work.began_at is not None or lease.careful,
        "queue_id": lease.queue_id,
    }


@contextmanager
def traced(request: HandlerRequest, work: Work) -> Iterator[Callable[[Outcome | None], None]]:
    """A span around the attempt, if there is tracing; to be told its outcome."""
    if tracing.tracer is None:
        yield lambda _: None
        return
    attributes: dict[str, str | int] = {
        "messaging.message.id": str(work.id),
        "user.id": str(request.user_id),
        "ordered_work.sequence": work.seq,
        "ordered_work.attempt": request.attempt,
    }
    with tracing.tracer.attempt(work.kind, work.traceparent, attributes) as ended:

        def tell(outcome: Outcome | None) -> None:
            if outcome is not None and outcome.outcome is not None:
                ended(outcome.outcome.value, outcome.error["type"] if outcome.error else None)

        yield tell


class Endless(Protocol):
    """An attempt that nothing ends."""

    kind: Kind

    def failed(self, error: BaseException, hanging: FrameType | None = None) -> Ending: ...


def give_up(attempt: Endless, recording: Recording, did: str, hanging: FrameType | None) -> bool:
    """Count it, and let others have its queue, before its process ends: it did that, and hangs there.

    False: its row is locked, so at a later look. Raises OperationalError and InterfaceError: PostgreSQL is away.
    """
    queue, kind = recording.lease.queue_id, attempt.kind.name
    log.error("a handler cannot be interrupted; its process ends", queue=queue, kind=kind)
    overrun = TimeLimitExceeded(f"The handler {did} and could not be interrupted.")
    ending = attempt.failed(overrun, hanging)
    before = recording.passed, list(recording.outcomes)
    recording.over(ending)
    then, delay = ending.then, ending.delay
    if then == QueueState.DRAINING:
        then, delay = QueueState.WAITING, 0
    try:
        recording.record(then, delay=delay, wait=False)
    except (OperationalError, InterfaceError) as error:
        recording.passed, recording.outcomes = before  # it is given up at a later look, once
        if isinstance(error, LeftOut):
            return False
        raise
    except (FencedOut, DatabaseError) as error:
        # Whoever takes the queue counts it. What hangs is lost all the same.
        log.warning("what was given up is not recorded", queue=queue, error=str(error).strip())
    recording.closed = True
    metrics.HANDLERS_GIVEN_UP.labels(kind).inc()
    return True


def give_back(wanted: Sequence[Wanted]) -> Refused:
    """Record these, with no attempt counted; what is locked is tried again for a moment. Raises django.db.Error."""
    deadline = time.monotonic() + LOCKED_SECONDS
    refused = record(wanted, 0)
    while refused.left_out and time.monotonic() < deadline:
        time.sleep(TICK_SECONDS)
        again = record([Wanted(one.recording, one.then, one.claim, one.delay) for one in refused.left_out], 0)
        refused = Refused(refused.fenced_out + again.fenced_out, again.left_out, refused.faulty + again.faulty)
    return refused


class RunOfIt(Protocol):
    """What an attempt needs of the run that its turn belongs to."""

    running: "Attempt | None"
    lock: Any


class TurnOfIt(Protocol):
    """What an attempt needs of its turn."""

    lease: Lease
    recording: Recording
    claim: deque[Work]
    handling: float

    @property
    def run(self) -> RunOfIt: ...

    def began_at(self, work: Work) -> datetime: ...


class Attempt:
    """The attempt under way in a worker thread; the watch looks in from its own. `began` is on the monotonic clock."""

    def __init__(self, turn: "TurnOfIt", work: Work, kind: Kind, function: handlers.Function) -> None:
        self.turn = turn
        self.work = work
        self.kind = kind
        self.function = function
        self.request = HandlerRequest(**request_fields(turn.lease, work))
        self.thread_id = threading.get_ident()
        self.began = 0.0
        self.took = 0.0  # seconds, once the handler has returned
        self.started_at: datetime = turn.lease.since
        self.interrupted = False
        self.outcome: Outcome | None = None  # of a handler that returned

    def run(self) -> Ending:
        """Call the handler. What it raises is in the ending; raises FencedOut alone."""
        if tracing.tracer is None:
            return self._run()
        # Around all in which a time limit may interrupt this thread: it meets no code of the tracer's.
        with traced(self.request, self.work) as ended:
            ending = self._run()
            ended(ending.outcome or self.outcome)
            return ending

    def _run(self) -> Ending:
        turn = self.turn
        event_log.started(turn.lease, self.work)
        run, entered = self._run_alone, time.monotonic()
        mine = cast("DatabaseWrapper", connections[DEFAULT_DB_ALIAS])
        if self.kind.atomic:
            run = self._run_atomic
            turn.claim.clear()  # recording it by itself leaves nothing else claimed
            turn.recording.record(QueueState.DRAINING, 1)
        self.started_at = turn.began_at(self.work)
        try:
            self.began = time.monotonic()
            mine.wanted = of_handler(self.kind.time_limit)
            try:
                turn.run.running = self
                return run()
            finally:
                self.end()
                mine.wanted = of_role()
                turn.handling += self.seconds
                paces.note(self.kind.name, self.seconds)
                commits = self.kind.atomic or self.request.next_requests  # with its record
                paces.note_thread(time.monotonic() - entered if commits else self.seconds)
        except FencedOut:
            raise
        except BaseException as error:  # a handler may raise anything, SystemExit too: none of it may end this thread
            self.end()  # once more: a time limit may have come in the middle of it
            drop_open_transaction()
            return self.failed(error)

    def _run_alone(self) -> Ending:
        """Run the handler; a transaction that it leaves open would swallow every record after it."""
        ending = self._run_handler()
        self.end()
        if drop_open_transaction():
            raise TransactionLeftOpen
        return self._record_with_next(ending) if self.request.next_requests else ending

    def _record_with_next(self, ending: Ending) -> Ending:
        """Accept what the handler submitted in the transaction that records it: exactly once."""
        recording = self.turn.recording
        self.turn.claim.clear()  # recording it by itself leaves nothing else claimed
        recording.record(QueueState.DRAINING, 1)
        with recording.atomically():
            self.request.accept_next()
            recording.over(ending)
        return RECORDED

    def _run_atomic(self) -> Ending:
        """Run the handler inside the transaction that records it: its own writes happen exactly once."""
        recording = self.turn.recording
        with recording.atomically():
            try:
                ending = self._run_handler()
            finally:
                self.end()
            if connection.needs_rollback:
                raise TransactionLeftBroken
            self.request.accept_next()
            recording.over(ending)
        return RECORDED

    def _run_handler(self) -> Ending:
        try:
            result = handlers.call(self.function, self.kind, self.request, self.work.payload)
        finally:
            self.took = time.monotonic() - self.began
        ending = returned(self.work, self.request, result, self.started_at, self.turn.lease.now())
        self.outcome = ending.outcome
        return ending

    def failed(self, error: BaseException, hanging: FrameType | None = None) -> Ending:
        """It ended with that; or its thread stands there, and nothing ends it."""
        given_up, now = self.request.cancelled, self.turn.lease.now()
        return raised(self.work, self.kind, given_up, error, self.started_at, now, hanging)

    def end(self) -> None:
        """The handler is over; a time limit's exception that has not arrived yet arrives here, and harms nobody."""
        with self.turn.run.lock:
            self.turn.run.running = None
        if self.interrupted:
            let_it_arrive()

    # What the watch asks, in its own thread.

    @property
    def seconds(self) -> float:
        """How long it has run, or ran."""
        return self.took or time.monotonic() - self.began

    @property
    def overrun(self) -> float:
        """Seconds beyond its kind's time limit; negative before."""
        return self.seconds - self.kind.time_limit

    def interrupt(self) -> None:
        """Its time is over."""
        self.interrupted = True
        interrupt(self.thread_id)
