"""From events to requests, a group at a time: what is accepted and that its event was, in one commit.

Who delivers an event again meets its row in `Event`, whatever happened in between and however long ago.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from uuid import UUID

import orjson
from django.db import transaction

from accounts.models import User
from processing.kafka.reading import Event, Message, Rejection, as_uuid
from processing.kafka.statements import BEGIN, KNOWN, UNDO, USERS
from project.rest.problems import Forbidden
from project.telemetry import tracing
from queues.enqueue import permissions
from queues.enqueue.accept import accept_messages, open_queue
from queues.notify import hints
from queues.notify.changes import changed
from queues.values import Accepted, Submission, SubmissionCall

Rejected = tuple[Message, Rejection]


@dataclass(frozen=True, slots=True)
class Entry:
    """An event of a known user. `id` is its eventId, 16 bytes however long that is; `content` hashes what it asks."""

    message: Message
    event_id: str
    user_id: UUID
    submission: Submission
    id: UUID
    content: int

    @property
    def trace(self) -> str:
        return f"kafka-{self.message.topic[:26]}-{self.message.partition}-{self.message.offset}"


@dataclass(frozen=True, slots=True)
class Settled:
    """What became of a group. `requests`: what each event made, now or when it came first."""

    requests: dict[UUID, UUID]
    accepted: int
    duplicates: int
    rejected: list[Rejected]
    left: list[Entry]  # their user's queue is full, locked or gone: nothing was done


def resolve(events: Sequence[Event]) -> tuple[list[Entry], list[Rejected]]:
    """Whose each is, and whether they may ask for it. Users who have no queue yet get one."""
    by_name = {event.user: User.normalize_username(event.user) for event in events if not as_uuid(event.user)}
    ids = {user_id for event in events if (user_id := as_uuid(event.user))}
    rows = USERS.rows(names=sorted(set(by_name.values())), ids=sorted(ids)) if events else []
    for row in rows:
        if row.queueless:
            open_queue(row.id)
    users = {row.asked: row.id for row in rows}
    entries: list[Entry] = []
    rejected: list[Rejected] = []
    for event in events:
        user_id = users.get(by_name.get(event.user) or str(as_uuid(event.user)))
        try:
            entries.append(_entry(event, user_id))
        except Rejection as why:
            rejected.append((event.message, why))
    return entries, rejected


def _entry(event: Event, user_id: UUID | None) -> Entry:
    """Raises Rejection."""
    if user_id is None:
        raise Rejection("unknown_user", f"There is no active user {event.user!r}.", event.event_id)
    kind, payload = event.submission.kind, event.submission.payload
    try:
        permissions.check(user_id, [kind])
    except Forbidden:
        raise Rejection("forbidden", f"type: {event.user!r} may not ask for {kind.name}.", event.event_id) from None
    event_id = as_uuid(event.event_id) or UUID(bytes=hashlib.sha256(event.event_id.encode()).digest()[:16])
    asked = hashlib.blake2b(f"{user_id}\n{kind.name}\n{payload}".encode(), digest_size=8).digest()
    content = int.from_bytes(asked, signed=True)
    return Entry(event.message, event.event_id, user_id, event.submission, event_id, content)


def gone(users: Iterable[UUID]) -> set[UUID]:
    """Those of the users who are not active any more."""
    asked = set(users)
    return asked - set(User.objects.filter(id__in=asked, is_active=True).values_list("id", flat=True))


def accept_group(group: Sequence[Entry]) -> Settled:
    """Accept what is new of it, in the caller's transaction. No id may be in it twice.

    Each user's are accepted in the order given and together, or left. Waits for whoever inserts one of the ids at once,
    for as long as this process waits for locks.
    """
    told = [{"id": one.id, "content": one.content, "request_id": one.submission.id} for one in group]
    begun = {row.id for row in BEGIN.rows(events=orjson.dumps(told).decode())}
    new = [one for one in group if one.id in begun]
    accepted = _accept(new) if new else {}
    left = [one for one in new if one.submission.id not in accepted]
    if left:
        UNDO.rows(ids=[one.id for one in left])
    requests = {one.id: one.submission.id for one in new if one.submission.id in accepted}
    came = [one for one in group if one.id not in begun]
    known = {row.id: row for row in KNOWN.rows(ids=[one.id for one in came])} if came else {}
    rejected = []
    for one in came:
        row = known[one.id]
        if row.content == one.content:
            requests[one.id] = row.request_id
        else:
            detail = f"eventId: it made request {row.request_id}, of another user, type or payload."
            rejected.append((one.message, Rejection("event_id_reused", detail, one.event_id)))
    queues = {one.queue_id for one in accepted.values()}
    if queues:
        transaction.on_commit(lambda: _tell(queues))
    return Settled(requests, len(accepted), len(came) - len(rejected), rejected, left)


def _accept(new: Sequence[Entry]) -> dict[UUID, Accepted]:
    """Those that were taken, by their ids; each in a span of its own, below the one that its message's headers name."""
    accepted: dict[UUID, Accepted] = {}
    with ExitStack() as spans:
        parents = [spans.enter_context(_span(one, accepted)) for one in new]
        asks = zip(new, parents, strict=True)
        accepted |= accept_messages(
            [SubmissionCall(one.user_id, None, one.submission, one.trace, parent) for one, parent in asks]
        )
    return accepted


@contextmanager
def _span(entry: Entry, accepted: Mapping[UUID, Accepted]) -> Iterator[str | None]:
    """Where there is tracing; its traceparent. None is told of what was not accepted until then."""
    if tracing.tracer is None:
        yield None
        return
    submission = entry.submission
    headers = {name: value.decode("latin-1") for name, value in entry.message.headers if value is not None}
    with tracing.tracer.submit(submission.kind.name, submission.id, 1, headers) as traceparent:
        yield traceparent
        if submission.id not in accepted:
            raise tracing.LeftToOthers


def _tell(queues: Iterable[int]) -> None:
    for queue_id in queues:
        changed(queue_id)
    hints.work_waits()
