"""What the end of an attempt means: its outcome, and how the queue goes on.

An outcome that cannot be kept means that the attempt failed. Run again, it would only be refused again.
"""

from collections.abc import Callable, Sequence
from copy import copy
from datetime import datetime
from types import FrameType
from typing import NamedTuple

import structlog
from django.db import InterfaceError, OperationalError, transaction

from processing import tracebacks
from processing.handlers import HandlerRequest, NoHandler, Reject, RetryLater, TimeLimitExceeded
from processing.results import InvalidResult
from queues.exceptions import FencedOut
from queues.kinds import Kind
from queues.lifecycle.lease import Lease
from queues.states import AttemptOutcome, OnFailure, QueueState, Status
from queues.values import Next, Outcome, Work

log = structlog.get_logger()

LONGEST_MESSAGE = 2000
TRACED = (AttemptOutcome.FAILED, AttemptOutcome.TIMED_OUT, AttemptOutcome.REJECTED)
NO_HANDLER_DELAY = 30.0  # seconds until a kind that has no handler here is tried again: a deploy may be under way


class Ending(NamedTuple):
    """`outcome` is None when the request was over before its turn; `delay` is seconds, when the queue waits."""

    outcome: Outcome | None
    then: Next = QueueState.DRAINING
    delay: float | None = None


def without_running(work: Work, now: Callable[[], datetime]) -> Ending | None:
    """For a request that was given up before its turn; None: it is to be run."""
    if work.finished_at is not None:
        return Ending(None)
    if work.expired:
        return Ending(Outcome(work.seq, Status.EXPIRED, work.attempt, finished_at=now(), work=work))
    if work.cancel_asked:
        return Ending(Outcome(work.seq, Status.CANCELLED, work.attempt, finished_at=now(), work=work))
    return None


def returned(work: Work, request: HandlerRequest, result: str, started: datetime, finished: datetime) -> Ending:
    """The handler returned; if it did because its owner had given up, the request is cancelled."""
    status, how = Status.SUCCEEDED, AttemptOutcome.SUCCEEDED
    if request.heeded:
        status, how = Status.CANCELLED, AttemptOutcome.CANCELLED
    return Ending(Outcome(work.seq, status, request.attempt, how, result, None, started, finished, work))


def raised(
    work: Work,
    kind: Kind | None,
    given_up: bool,
    error: BaseException,
    started: datetime,
    finished: datetime,
    hanging: FrameType | None = None,
) -> Ending:
    """The attempt failed: once more after a while, or what the kind wants after its last one.

    `given_up`: its owner asked for an end meanwhile, so that there is no other attempt. A result that is no JSON has
    none either: the handler did its work, and would do it again. `hanging` is where its thread stands.
    """
    number = work.attempt + 1
    how, delay = _how(error, kind, number)
    then: Next = QueueState.DRAINING
    status = Status.FAILED
    if given_up:
        status, how = Status.CANCELLED, AttemptOutcome.CANCELLED
    elif not isinstance(error, Reject | InvalidResult) and number < work.max_attempts:
        status, then = Status.RETRYING, QueueState.WAITING
    elif work.on_failure == OnFailure.BLOCK:
        status, then = Status.RETRYING, QueueState.BLOCKED
    told = {"type": _name(error), "message": _message(error, kind), "at": finished.isoformat()}
    found = tracebacks.of(error, hanging) if how in TRACED else None
    text, frames = found or (None, None)
    outcome = Outcome(work.seq, status, number, how, None, told, started, finished, work, text, frames)
    return Ending(outcome, then, delay if then == QueueState.WAITING else None)


def _how(error: BaseException, kind: Kind | None, number: int) -> tuple[AttemptOutcome, float]:
    """What ended the attempt, and after how many seconds the next one may begin."""
    if isinstance(error, NoHandler) or kind is None:
        return AttemptOutcome.FAILED, NO_HANDLER_DELAY
    if isinstance(error, RetryLater):
        return AttemptOutcome.POSTPONED, error.seconds
    if isinstance(error, Reject):
        return AttemptOutcome.REJECTED, 0
    if isinstance(error, TimeLimitExceeded):
        return AttemptOutcome.TIMED_OUT, kind.delay(number)
    return AttemptOutcome.FAILED, kind.delay(number)


def _name(error: BaseException) -> str:
    return type(error).__name__


def _message(error: BaseException, kind: Kind | None) -> str:
    """What is said of it: bounded, and storable whatever a handler put into it."""
    try:
        text = str(error)
    except Exception:
        text = "It has no readable message."
    if isinstance(error, TimeLimitExceeded) and kind is not None:
        text = text or f"The handler overran its time limit of {kind.time_limit:g} s."
    return text.encode("utf-8", "replace").decode()[:LONGEST_MESSAGE]


class Replaced(NamedTuple):
    """What is recorded instead. `blocked_at`: its queue stops there, what ran after it runs again; 0: it goes on."""

    outcomes: list[Outcome]
    blocked_at: int = 0


def replace_refused(lease: Lease, outcomes: Sequence[Outcome]) -> Replaced | None:
    """Each is tried by itself, in a transaction that is rolled back. None: none of them is refused.

    Raises OperationalError and InterfaceError.
    """
    kept: list[Outcome] = []
    found = False
    for outcome in outcomes:
        error = _refusal(lease, outcome)
        if error is None or outcome.work is None:
            kept.append(outcome)
            continue
        found = True
        log.error("an outcome cannot be kept", queue=lease.queue_id, sequence=outcome.seq, error=str(error).strip())
        why = InvalidResult((), f"What came of it cannot be kept ({type(error).__name__}).")
        began, ended = outcome.started_at or lease.now(), outcome.finished_at or lease.now()
        ending = raised(outcome.work, None, False, why, began, ended)
        assert ending.outcome is not None  # noqa: S101  (an attempt has one)
        kept.append(ending.outcome)
        if ending.then == QueueState.BLOCKED:
            return Replaced(kept, outcome.seq)
    return Replaced(kept) if found else None


def _refusal(lease: Lease, outcome: Outcome) -> Exception | None:
    try:
        with transaction.atomic():
            copy(lease).record(0, [outcome], QueueState.DRAINING, 1)
            transaction.set_rollback(True)
    except FencedOut:
        return None  # the record itself will say so
    except (OperationalError, InterfaceError):
        raise
    except Exception as error:  # PostgreSQL's, or it cannot even be told
        return error
    return None
