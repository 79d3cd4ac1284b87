"""The wording of the log: one line for each thing that happens to a request or a queue, in the words of the API.

Each has user, queue, request, sequence, kind, attempt and request_id (the X-Request-ID that brought it) as far as they
are known. Successes that were recorded together are one line. Of each event at most LOG_REQUESTS_PER_SECOND lines a
second are written by a process, so that a flood of fast requests pays next to nothing for its log.
"""

import logging
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextvars import copy_context
from functools import partial
from typing import Any, Protocol
from uuid import UUID

import structlog
from django.conf import settings
from django.db import transaction

from project.telemetry.logs import Budget
from project.telemetry.tracing import trace_id
from queues.models import Request, UserQueue
from queues.states import AttemptOutcome, QueueState, Status
from queues.values import Outcome, Submission, Work

log = structlog.get_logger()


class LeasedQueue(Protocol):
    """A queue that a worker runs: its lease."""

    user_id: UUID
    queue_id: int
    state: QueueState


_budgets: defaultdict[str, Budget] = defaultdict(lambda: Budget(settings.ENV.log_requests_per_second))


def _line(event: str, tell: Callable[[], dict[str, Any]], level: int = logging.INFO) -> None:
    """Write a line, if there is room for it; only then its fields are put together."""
    left_out = _budgets[event].take()
    if left_out is not None:
        log.log(level, event, **tell(), **({"left_out": left_out} if left_out else {}))


def accepted(
    user_id: UUID,
    submissions: Sequence[Submission],
    rows: Sequence[Any],
    trace: str,
    traceparent: str | None = None,
) -> None:
    """Requests were committed; the rows are ACCEPT's."""

    def tell() -> dict[str, Any]:
        told = {"user": str(user_id), "queue": rows[0].queue_id, "request_id": trace, **trace_id(traceparent)}
        if len(rows) == 1:
            (one,) = submissions
            return {**told, "request": str(one.id), "sequence": rows[0].seq, "kind": one.kind.name}
        places = [row.seq for row in rows if row.seq is not None]
        return told | _many([one.kind.name for one in submissions], places)

    _line("accepted", tell)


def queued(rows: Sequence[Any]) -> None:
    """Scheduled requests have their place in line; the rows are PROMOTE_SCHEDULED's."""
    for row in rows:
        _line("queued", partial(_placed, row))


def expired(rows: Sequence[Any]) -> None:
    """Requests' time was over before they began; the rows are EXPIRE's, committed."""
    for row in rows:
        _line("expired", partial(_passed, row))


def _passed(row: Any) -> dict[str, Any]:
    told = _placed(row)
    return told | {"attempt": row.attempt, "accepted_as": told.pop("request_id")}


def _placed(row: Any) -> dict[str, Any]:
    return {
        "user": str(row.user_id),
        "queue": row.queue_id,
        "request": str(row.id),
        "sequence": row.seq,
        "kind": row.kind,
        "request_id": row.trace,
    }


def started(lease: LeasedQueue, work: Work) -> None:
    """A worker calls the handler."""
    _line("started", lambda: {**_of(lease, work), "attempt": work.attempt + 1})


def recorded(lease: LeasedQueue, outcomes: Sequence[Outcome]) -> None:
    """A worker recorded what came of them."""
    succeeded = []
    for outcome in outcomes:
        if outcome.status == Status.SUCCEEDED:
            succeeded.append(outcome)
        elif outcome.status == Status.RETRYING and lease.state == QueueState.BLOCKED:
            _line("blocked", partial(_ended, lease, outcome), logging.ERROR)
        else:
            _line(outcome.status.value, partial(_ended, lease, outcome), _level(outcome))
    if len(succeeded) == 1:
        _line("succeeded", partial(_ended, lease, succeeded[0]))
    elif succeeded:
        _line("succeeded", partial(_ended_together, lease, succeeded))


def _level(outcome: Outcome) -> int:
    """How bad it is: what a handler rejected is its caller's error, and what it postponed is none."""
    if outcome.outcome not in (AttemptOutcome.FAILED, AttemptOutcome.TIMED_OUT):
        return logging.INFO
    return logging.WARNING if outcome.status == Status.RETRYING else logging.ERROR


def _ended(lease: LeasedQueue, outcome: Outcome) -> dict[str, Any]:
    told: dict[str, Any] = _of(lease, outcome.work) if outcome.work else {}
    told["attempt"] = outcome.attempt
    if outcome.outcome is not None:
        told["outcome"] = outcome.outcome.value
    if outcome.error is not None:
        told["error"] = outcome.error["type"]  # its message may quote the payload
    if outcome.started_at is not None and outcome.finished_at is not None:
        told["seconds"] = round((outcome.finished_at - outcome.started_at).total_seconds(), 4)
    if outcome.frames is not None and outcome.outcome != AttemptOutcome.REJECTED:
        told["traceback"] = outcome.frames
    return told


def _ended_together(lease: LeasedQueue, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    told = {"user": str(lease.user_id), "queue": lease.queue_id}
    return told | _many([o.work.kind for o in outcomes if o.work], [o.seq for o in outcomes])


def _many(kinds: Sequence[str], places: Sequence[int]) -> dict[str, Any]:
    return {
        "requests": len(kinds),
        "sequences": f"{min(places)}-{max(places)}" if places else None,
        "kind": ",".join(sorted(set(kinds))),
    }


def _of(lease: LeasedQueue, work: Work) -> dict[str, Any]:
    return {
        "user": str(lease.user_id),
        "queue": lease.queue_id,
        "request": str(work.id),
        "sequence": work.seq,
        "kind": work.kind,
        "request_id": work.trace,
        **trace_id(work.traceparent),
    }


def lost(queue: UserQueue, request: Request) -> None:
    """A request's attempt ended with its worker."""
    _line("lost", lambda: {**_known(queue, request), "status": str(request.status)})


def intervened(event: str, queue: UserQueue, request: Request | None = None, **fields: Any) -> None:
    """An owner, an operator or the dispatcher did something to a queue, or to one of its requests.

    Written after the commit, if the caller is in a transaction: one that fails has done nothing. It has what is bound
    to the log now, as who does it: a commit may be of several calls.
    """
    transaction.on_commit(partial(copy_context().run, _line, event, lambda: _known(queue, request) | fields))


def _known(queue: UserQueue, request: Request | None) -> dict[str, Any]:
    told: dict[str, Any] = {"user": str(queue.user_id), "queue": queue.pk}
    if request is not None:
        told |= {"request": str(request.id), "sequence": request.seq, "kind": request.kind, "attempt": request.attempt}
        told["accepted_as"] = request.trace  # request_id is that of the call which does this, if one does
    return told
