"""Taking requests in: a place in line and the row, in one statement and one commit. Nothing here talks to RabbitMQ."""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple
from uuid import UUID

import orjson
from django.conf import settings
from django.db import transaction

from accounts.models import Session, User
from project.telemetry import tracing
from queues import event_log
from queues.exceptions import QueueFull, SessionOver, TooManyBytes, TooManyGivenUp
from queues.metrics import count_accepted
from queues.models import UserQueue
from queues.notify.changes import changed
from queues.sql.accept import ACCEPT, ACCEPT_MESSAGES, ACCEPT_TOGETHER, OPEN_QUEUE
from queues.sql.definitions import PLACES_FOR_EACH
from queues.sql.locks import with_patience
from queues.sql.statement import Statement
from queues.values import Accepted, Submission, SubmissionCall

NO_LIMIT = 2**62


def accept(
    user_id: UUID, submissions: Sequence[Submission], *, session_id: UUID | None, trace: str = ""
) -> list[Accepted]:
    """Take all of them into the user's queue in the order given, or none; once it returns they are kept.

    With `session_id` the same statement sees to it that the session lives. Raises SessionOver and QueueFull, of which
    TooManyGivenUp and TooManyBytes are kinds.
    """
    if tracing.tracer is None:
        return _accept(user_id, submissions, session_id, trace)
    one = submissions[0].id if len(submissions) == 1 else None
    kind = ",".join(sorted({submission.kind.name for submission in submissions}))
    with tracing.tracer.submit(kind, one, len(submissions)) as traceparent:
        return _accept(user_id, submissions, session_id, trace, traceparent)


def _accept(
    user_id: UUID,
    submissions: Sequence[Submission],
    session_id: UUID | None,
    trace: str,
    traceparent: str | None = None,
) -> list[Accepted]:
    in_line = 0
    told = []
    for submission in submissions:
        in_line += submission.not_before is None
        place = in_line if submission.not_before is None else None
        told.append(_told(user_id, submission, place, trace, traceparent))
    values = {
        "user": user_id,
        "session": session_id,
        "limit": settings.ENV.waiting_limit,
        "places": in_line,
        "scheduled": len(submissions) - in_line,
        "bytes": sum(one["bytes"] for one in told),
        **_most_bytes(),
        "requests": orjson.dumps(told).decode(),
    }
    rows = []
    if in_line == len(submissions):
        with with_patience():
            rows = ACCEPT.rows(**values)
    rows = rows or _accept_alone(user_id, session_id, values)
    transaction.on_commit(partial(_tell, user_id, submissions, rows, trace, traceparent))
    found = {row.id: row for row in rows}
    return [_accepted(submission, found[submission.id]) for submission in submissions]


class TakenTogether(NamedTuple):
    """Requests of several users, by their ids: those that were taken, and those to be brought once more.

    These met a queue that somebody had locked for a moment, or were of another session than those that were taken.
    """

    accepted: dict[UUID, Accepted]
    later: set[UUID]


def accept_together(asks: Sequence[SubmissionCall]) -> TakenTogether:
    """Take in several users' requests, none of them scheduled, in one commit.

    Each user's are taken together or not at all, whatever becomes of the others'. Nothing happened to those that are in
    neither set: `accept` says why, or makes the queue; it also waits for a lock. To tell those who watch the queues is
    left to the caller.
    """
    return _accept_together(ACCEPT_TOGETHER, asks)


def accept_messages(asks: Sequence[SubmissionCall]) -> dict[UUID, Accepted]:
    """The same for asks without a session, in the caller's transaction: active users' are taken."""
    return _accept_together(ACCEPT_MESSAGES, asks).accepted


def _accept_together(statement: Statement, asks: Sequence[SubmissionCall]) -> TakenTogether:
    users: dict[UUID, dict[str, Any]] = {}
    told = []
    nothing = {"places": 0, "bytes": 0}
    for ask in asks:
        user = users.setdefault(ask.user_id, {**nothing, "user_id": ask.user_id, "session_id": ask.session_id})
        if user["session_id"] == ask.session_id:  # two sessions of one user: the second one is later
            user["places"] += 1
            told.append(_told(ask.user_id, ask.submission, user["places"], ask.trace, ask.traceparent))
            user["bytes"] += told[-1]["bytes"]
    rows = statement.rows(
        limit=settings.ENV.waiting_limit,
        **_most_bytes(),
        asked=orjson.dumps(list(users.values())).decode(),
        requests=orjson.dumps(told).decode(),
    )
    found = {row.id: row for row in rows}
    taken = [ask for ask in asks if ask.submission.id in found]
    transaction.on_commit(partial(_tell_together, taken, found))
    accepted = {ask.submission.id: _accepted(ask.submission, found[ask.submission.id]) for ask in taken}
    locked = {row.locked for row in rows}
    later = [ask for ask in asks if ask.user_id in locked or ask.session_id != users[ask.user_id]["session_id"]]
    return TakenTogether(accepted, {ask.submission.id for ask in later})


def _accepted(submission: Submission, row: Any) -> Accepted:
    return Accepted(
        submission, row.queue_id, row.seq, row.created_at, row.done_seq, row.given_up_ahead, row.avg_service_seconds,
        row.stands,
    )  # fmt: skip


@transaction.atomic
def _accept_alone(user_id: UUID, session_id: UUID | None, values: dict[str, Any]) -> list[Any]:
    """Run the statement with the queue locked: what it counts (scheduled requests, bytes) nobody adds to meanwhile.

    Makes the queue if the user had none. Raises what `accept` does.
    """
    mine = UserQueue.objects.select_for_update(no_key=True).filter(user=user_id)
    with with_patience():
        queue = mine.first()
        if queue is None:
            _check_session(user_id, session_id)
            OPEN_QUEUE.rows(user=user_id)
            queue = mine.get()
    rows = ACCEPT.rows(**values)
    if rows:
        return rows
    _check_session(user_id, session_id)
    raise _refused(queue, values)


def _refused(queue: UserQueue, values: dict[str, Any]) -> QueueFull:
    """Why the locked queue does not take this."""
    asked, stored, waiting = values["bytes"], values["most_stored"], values["most_waiting"]
    if queue.bytes_stored + asked > stored:
        return TooManyBytes(queue, "bytes_stored", stored, queue.bytes_stored, asked)
    if queue.bytes_stored + asked > waiting and (used := queue.bytes_waiting()) + asked > waiting:
        return TooManyBytes(queue, "bytes_waiting", waiting, used, asked)
    has_room = queue.depth + values["places"] <= queue.limit
    if has_room and queue.last_seq - queue.done_seq + values["places"] > PLACES_FOR_EACH * queue.limit:
        return TooManyGivenUp(queue)
    return QueueFull(queue)


def _most_bytes() -> dict[str, int]:
    """The limits as the statements take them."""
    env = settings.ENV
    return {"most_waiting": env.bytes_waiting or NO_LIMIT, "most_stored": env.bytes_stored or NO_LIMIT}


def _tell(
    user_id: UUID, submissions: Sequence[Submission], rows: list[Any], trace: str, traceparent: str | None
) -> None:
    """Count and log what was committed, and tell those who watch the queue."""
    count_accepted([submission.kind for submission in submissions])
    event_log.accepted(user_id, submissions, rows, trace, traceparent)
    changed(rows[0].queue_id)


def _tell_together(taken: Sequence[SubmissionCall], rows: dict[UUID, Any]) -> None:
    """Count and log what was committed."""
    count_accepted([ask.submission.kind for ask in taken])
    for ask in taken:
        event_log.accepted(ask.user_id, [ask.submission], [rows[ask.submission.id]], ask.trace, ask.traceparent)


def open_queue(user_id: UUID) -> int:
    """The id of the user's queue, which is made if they never asked for anything."""
    with with_patience():
        OPEN_QUEUE.rows(user=user_id)
    return UserQueue.objects.values_list("id", flat=True).get(user=user_id)


def _check_session(user_id: UUID, session_id: UUID | None) -> None:
    """Raise SessionOver if that is why nothing was accepted."""
    if not User.objects.filter(id=user_id, is_active=True).exists():
        raise SessionOver
    if session_id is not None and not Session.objects.filter(id=session_id, user=user_id, ended_at=None).exists():
        raise SessionOver


def _told(
    user_id: UUID, submission: Submission, place: int | None, trace: str, traceparent: str | None
) -> dict[str, Any]:
    """A submission as ACCEPT reads it; the payload is text, so that PostgreSQL stores it as it is."""
    kind = submission.kind
    return {
        "user_id": user_id,
        "id": submission.id,
        "place": place,
        "kind": kind.name,
        "version": kind.version,
        "payload": submission.payload,
        "max_attempts": kind.max_attempts,
        "on_failure": kind.on_failure,
        "not_before": submission.not_before,
        "expires_at": submission.expires_at,
        "retry_of": submission.retry_of,
        "trace": trace,
        "traceparent": traceparent or None,
        "bytes": len(submission.payload.encode()),
    }
