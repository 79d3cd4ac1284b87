"""All that is known of a user, record by record: as much as the API shows them, and what it keeps beside.

Pages are read along an index, each in a statement of its own: no memory grows with the user, and no snapshot is held.
"""

from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

from django.db.models import Model

from accounts.audit import SecurityEvent
from accounts.models import Session, User
from queues.models import Attempt, IdempotencyKey, UserQueue
from queues.operations.selectors import by_key
from queues.representation import pagination, shape
from queues.representation.pagination import Cursor, Filters

PAGE = 200

others: list[Callable[[User], Iterator[dict[str, Any]]]] = []  # an app that keeps something of users adds its own


def records(user: User) -> Iterator[dict[str, Any]]:
    """A dictionary for each thing, with what it is under `record`; the last one is `end`, with how many there were."""
    count = 0
    for record in _all(user):
        count += 1
        yield record
    yield {"record": "end", "records": count}


def _all(user: User) -> Iterator[dict[str, Any]]:
    yield {
        "record": "account",
        **_columns(user, "id", "username", "email", "verified_email", "created_at", "last_login"),
        **_columns(user, "is_active", "is_staff"),
        "groups": list(user.groups.values_list("name", flat=True)),
    }
    for session in by_key(Session.objects.filter(user=user), "id", PAGE):
        shown = _columns(session, "id", "created_at", "last_used_at", "ended_at", "address", "user_agent")
        yield {"record": "session", **shown}
    for event in by_key(SecurityEvent.objects.filter(user_id=user.id), "id", PAGE):
        shown = _columns(event, "at", "event", "address", "user_agent", "request_id", "detail")
        yield {"record": "security_event", **shown}
    for key in by_key(IdempotencyKey.objects.filter(user=user).defer("answer", "digest"), "key", PAGE):
        yield {"record": "idempotency_key", **_columns(key, "key", "location", "created_at")}
    queue = UserQueue.objects.filter(user=user).first()
    if queue is not None:
        shown = _columns(queue, "id", "state", "paused", "last_seq", "done_seq", "waiting_limit")
        yield {"record": "queue", **shown}
        yield from _requests(queue)
    for records_of in others:
        yield from records_of(user)


def _requests(queue: UserQueue) -> Iterator[dict[str, Any]]:
    """In the order in which they run, each with its attempts."""
    cursor: Cursor | None = None
    while True:
        page = pagination.page(queue, Filters(), cursor, PAGE, newest_first=False)
        tried: dict[UUID, list[Attempt]] = {}
        for attempt in Attempt.objects.filter(request__in=[request.id for request in page.requests]):
            tried.setdefault(attempt.request_id, []).append(attempt)
        for request in page.requests:
            told = {**shape.one(request), "request_id": request.trace}
            yield {"record": "request", **told, "attempts": shape.attempts(request, tried.get(request.id, ()))}
        if page.next is None:
            return
        cursor = page.next


def _columns(row: Model, *names: str) -> dict[str, Any]:
    return {name: getattr(row, name) for name in names}
