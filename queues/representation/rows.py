"""What an owner reads: each a single statement, which also asks whether the owner's session lives."""

from datetime import datetime
from typing import Any
from uuid import UUID

from queues.exceptions import SessionOver
from queues.in_line import InLine
from queues.models import UserQueue
from queues.sql.reads import GIVEN_UP_BETWEEN, OWN_QUEUE, OWN_REQUEST, OWN_SESSION, QUEUE, SHOWN


class RequestRow(InLine):
    """A request as it was read to be shown: its columns, and its JSON as `<name>_text`. A model's instance costs
    several times as much, and a page has many.
    """

    id: UUID
    queue_id: int
    kind: str
    version: int
    max_attempts: int
    retry_of_id: UUID | None
    trace: str
    cancel_asked_at: datetime | None
    not_before: datetime | None
    expires_at: datetime | None
    created_at: datetime
    payload_text: str
    result_text: str | None
    error_text: str | None

    def __init__(self, values: Any, queue: UserQueue | None) -> None:
        self.__dict__.update(zip(SHOWN, values, strict=False))  # what comes behind is the statement's own
        self.queue = queue


def check_session(user_id: UUID, session_id: UUID) -> None:
    """Raises SessionOver, unless the user's session lives."""
    if OWN_SESSION.row(user=user_id, session=session_id) is None:
        raise SessionOver


def own_request(user_id: UUID, session_id: UUID, request_id: UUID) -> RequestRow | None:
    """The user's request with its queue, its JSON as `<name>_text`; None when it is not theirs. Raises SessionOver."""
    row = OWN_REQUEST.row(user=user_id, session=session_id, request=request_id)
    if row is None:
        raise SessionOver
    at = len(QUEUE)
    return request_of(row[at:], queue_of(row[:at]))


def own_queue(user_id: UUID, session_id: UUID) -> UserQueue | None:
    """The user's queue; None when they never asked for anything. Raises SessionOver."""
    row = OWN_QUEUE.row(user=user_id, session=session_id)
    if row is None:
        raise SessionOver
    return queue_of(row)


def request_of(values: Any, queue: UserQueue | None) -> RequestRow | None:
    """The request in REQUEST_COLUMNS and TEXT_COLUMNS, of that queue; None where the join found nothing."""
    return None if values[0] is None else RequestRow(values, queue)


def count_given_up_between(queue: UserQueue, requests: list[RequestRow]) -> None:
    """Have requests of that queue know it, and how many ahead of each are final: in one statement, or in none."""
    for request in requests:
        request.queue = queue
    if not queue.given_up_ahead:
        return
    waiting = {request.seq: request for request in requests if request.seq is not None and request.finished_at is None}
    places = [seq for seq in waiting if seq > queue.done_seq]
    for row in GIVEN_UP_BETWEEN.rows(queue=queue.id, done=queue.done_seq, places=places) if places else ():
        waiting[row.seq].given_up_between = row.count


def queue_of(values: Any) -> UserQueue | None:
    """The queue in QUEUE_COLUMNS; None where the join found nothing."""
    return None if values[0] is None else UserQueue.from_db("default", QUEUE, values)
