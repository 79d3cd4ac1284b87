"""What an owner reads: each a single statement, which also asks whether the owner's session lives."""

from datetime import datetime
from typing import Any
from uuid import UUID

from django.db.models import Model
from django.db.models.fields.generated import GeneratedField

from queues.exceptions import SessionOver
from queues.models import InLine, Request, UserQueue
from queues.representation.shape import JSON_COLUMNS
from queues.sql.statement import Statement

# One row while the session lives, whatever it is joined to; none once it has ended.
LIVING_SESSION = """
    accounts_session s JOIN accounts_user u
        ON u.id = s.user_id AND u.is_active AND s.id = %(session)s AND u.id = %(user)s AND s.ended_at IS NULL
"""


def _columns(model: type[Model]) -> list[str]:
    return [
        field.attname
        for field in model._meta.concrete_fields
        if field.attname not in JSON_COLUMNS and not isinstance(field, GeneratedField)
    ]


QUEUE, REQUEST = _columns(UserQueue), _columns(Request)
SHOWN = [*REQUEST, *(f"{name}_text" for name in JSON_COLUMNS)]
QUEUE_COLUMNS = ", ".join(f"q.{name} AS queue_{name}" for name in QUEUE)
REQUEST_COLUMNS = ", ".join(f"r.{name} AS request_{name}" for name in REQUEST)
TEXT_COLUMNS = ", ".join(f"r.{name}::text" for name in JSON_COLUMNS)


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
        self.__dict__.update(zip(SHOWN, values, strict=True))
        self.queue = queue


OWN_REQUEST = Statement(f"""
    SELECT {QUEUE_COLUMNS}, {REQUEST_COLUMNS}, {TEXT_COLUMNS}
    FROM {LIVING_SESSION}
    LEFT JOIN (queues_userqueue q JOIN queues_request r ON r.queue_id = q.id AND r.id = %(request)s) ON q.user_id = u.id
""")  # noqa: S608  (columns' names)

# How many requests between the head and each of some places in line are final already: what lies between two of these
# places is read once, from the index.
GIVEN_UP_BETWEEN = Statement("""
    SELECT v.seq, (sum(v.count) OVER (ORDER BY v.seq))::bigint AS count FROM (
        SELECT place.seq, (SELECT count(*) FROM queues_request r
                           WHERE r.queue_id = %(queue)s AND r.given_up IN ('failed', 'cancelled', 'expired')
                           AND r.seq > place.behind AND r.seq < place.seq)
        FROM (SELECT seq, lag(seq, 1, %(done)s::bigint) OVER (ORDER BY seq) AS behind
              FROM unnest(%(places)s::bigint[]) seq) place
    ) v
""")

OWN_QUEUE = Statement(f"""
    SELECT {QUEUE_COLUMNS} FROM {LIVING_SESSION} LEFT JOIN queues_userqueue q ON q.user_id = u.id
""")  # noqa: S608


SESSION = Statement(f"SELECT FROM {LIVING_SESSION}")


def check_session(user_id: UUID, session_id: UUID) -> None:
    """Raises SessionOver, unless the user's session lives."""
    if SESSION.row(user=user_id, session=session_id) is None:
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
