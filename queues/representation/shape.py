"""A request as the API shows it. JSON that is stored as text goes out as it is, unparsed."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any

import orjson
from django.db.models import QuerySet, TextField
from django.db.models.functions import Cast

from queues.models import Attempt, Request
from queues.notify import progress
from queues.sql.reads import JSON_COLUMNS
from queues.states import AttemptOutcome, Status
from queues.values import Accepted


def as_text(requests: QuerySet[Request]) -> QuerySet[Request]:
    """Requests with their JSON as text, to be shown by `one`."""
    texts = {f"{name}_text": Cast(name, TextField()) for name in JSON_COLUMNS}
    return requests.defer(*JSON_COLUMNS).annotate(**texts)


def new(accepted: Accepted) -> dict[str, Any]:
    """A request that was just accepted."""
    asked = accepted.submission
    return {
        "id": asked.id,
        "kind": asked.kind.name,
        "version": asked.kind.version,
        "status": "scheduled" if accepted.seq is None else "queued",
        "sequence": accepted.seq,
        "position": accepted.position,
        "eta_seconds": accepted.eta_seconds,
        "payload": orjson.Fragment(asked.payload),
        "attempt": 0,
        "max_attempts": asked.kind.max_attempts,
        "progress": None,
        "result": None,
        "error": None,
        "retry_of": asked.retry_of,
        "cancel_requested": False,
        "created_at": accepted.created_at,
        "not_before": asked.not_before,
        "expires_at": asked.expires_at,
        "started_at": None,
        "finished_at": None,
    }


def one(request: Any) -> dict[str, Any]:
    """A request with its queue and its JSON as text. If it runs, its progress is asked for: at most one of a queue."""
    live = request.finished_at is None  # most of a page are final, and the queue has nothing to say of them
    return {
        "id": request.id,
        "kind": request.kind,
        "version": request.version,
        "status": request.status_now.value if live else request.status,
        "sequence": request.seq,
        "position": request.position if live else None,
        "eta_seconds": request.eta_seconds if live else None,
        "payload": orjson.Fragment(request.payload_text),
        "attempt": request.attempt_now if live else request.attempt,
        "max_attempts": request.max_attempts,
        "progress": progress.read([request.id])[0] if live and request.running else None,
        "result": None if request.result_text is None else orjson.Fragment(request.result_text),
        "error": None if request.error_text is None else _error(orjson.loads(request.error_text)),
        "retry_of": request.retry_of_id,
        "cancel_requested": request.cancel_asked_at is not None,
        "created_at": request.created_at,
        "not_before": request.not_before,
        "expires_at": request.expires_at,
        "started_at": request.started if live else request.started_at,
        "finished_at": request.finished_at,
    }


def attempts(request: Any, tried: Iterable[Attempt]) -> list[dict[str, Any]]:
    """Every attempt at it that ended. Success at the first leaves no row of its own: the request's tells it."""
    ended = [
        _attempt(attempt.number, attempt.started_at, attempt.finished_at, attempt.outcome, attempt.error)
        for attempt in tried
    ]
    if not ended and request.status == Status.SUCCEEDED:
        ended.append(
            _attempt(request.attempt, request.started_at, request.finished_at, AttemptOutcome.SUCCEEDED.value, None)
        )
    return ended


def _attempt(
    number: int, started_at: datetime | None, finished_at: datetime | None, outcome: str, error: dict[str, Any] | None
) -> dict[str, Any]:
    return {
        "number": number,
        "started_at": started_at,
        "finished_at": finished_at,
        "outcome": outcome,
        "error": error and _error(error),
    }


def _error(error: dict[str, Any]) -> dict[str, Any]:
    """It is stored with Python's offset; the API's times end in Z."""
    return {**error, "at": error["at"].replace("+00:00", "Z")}
