"""Pages of a user's requests, by sequence: the newest first, or in the order in which they run.

What has no sequence number (scheduled, or given up before it was due) stands at the new end, by its id. A page is read
from an index at a place the cursor names, so the thousandth costs what the first does.
"""

import base64
import binascii
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Self
from uuid import UUID

from django.db.models import QuerySet

from project.rest.problems import FieldError, Invalid
from queues.models import Request, UserQueue
from queues.representation.rows import count_given_up_between
from queues.representation.shape import as_text
from queues.states import QueueState, Status

AT_A_TIME = 32
LARGEST_PAGE_BYTES = 8 * 1024 * 1024  # of payloads and results; the page ends early, and next goes on
CLOCK_STEP = timedelta(minutes=1)  # PostgreSQL's clock may have been set back by so much
IN_LINE_ONLY = {Status.QUEUED, Status.RUNNING, Status.RETRYING, Status.BLOCKED, Status.SUCCEEDED, Status.FAILED}
HEAD_IN = {Status.RUNNING: QueueState.DRAINING, Status.BLOCKED: QueueState.BLOCKED}  # the head while its queue is so


@dataclass(frozen=True, slots=True)
class Cursor:
    """Beyond this request: its sequence number, or its id when it has none. `back` reads towards the start."""

    place: int | UUID
    back: bool = False

    @classmethod
    def at(cls, request: Request, *, back: bool = False) -> Self:
        return cls(request.id if request.seq is None else request.seq, back)

    def __str__(self) -> str:
        kind = b"<" if self.back else b">"
        place = self.place.bytes if isinstance(self.place, UUID) else struct.pack(">q", self.place)
        return base64.urlsafe_b64encode(kind + place).rstrip(b"=").decode()

    @classmethod
    def read(cls, text: str) -> Self:
        """Raises Invalid when it is none of ours."""
        try:
            raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            raw = b""
        kind, place = raw[:1], raw[1:]
        if kind not in (b"<", b">") or len(place) not in (8, 16):
            raise Invalid(FieldError("cursor", "cursor", "Take the cursor from next or previous of another page."))
        return cls(UUID(bytes=place) if len(place) == 16 else struct.unpack(">q", place)[0], kind == b"<")


@dataclass(frozen=True, slots=True)
class Page:
    requests: list[Request]
    next: Cursor | None
    previous: Cursor | None


@dataclass(frozen=True, slots=True)
class Filters:
    status: Status | None = None
    kind: str | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None


def page(queue: UserQueue, filters: Filters, cursor: Cursor | None, limit: int, *, newest_first: bool) -> Page:
    """The requests of a queue that pass the filters, at most `limit` and some megabytes of them, from the cursor on."""
    back = cursor is not None and cursor.back
    downwards = newest_first != back
    found: list[Request] = []
    left = LARGEST_PAGE_BYTES
    for part in _parts(queue, filters, cursor, downwards):
        for request in _read(part, limit + 1, downwards):
            found.append(request)
            left -= _bytes(request)
            if len(found) > limit or left < 0:
                break
        if len(found) > limit or left < 0:
            break
    more, found = len(found) > limit or left < 0, found[:limit]
    if back:
        found.reverse()
    count_given_up_between(queue, found)
    if not found:
        return Page([], None, None)
    return Page(
        found,
        next=Cursor.at(found[-1]) if more or back else None,
        previous=Cursor.at(found[0], back=True) if (more if back else cursor is not None) else None,
    )


def _read(part: QuerySet[Request], most: int, downwards: bool) -> Iterator[Request]:
    """The first requests of a part, a few at a time: a result may have a megabyte, and a page two hundred of them."""
    step = "lt" if downwards else "gt"
    while most > 0:
        some = list(part[: min(most, AT_A_TIME)])
        yield from some
        if len(some) < AT_A_TIME:
            return
        most -= len(some)
        last = some[-1]
        part = part.filter(**{f"id__{step}": last.id} if last.seq is None else {f"seq__{step}": last.seq})


def _bytes(request: Any) -> int:
    return len(request.payload_text) + len(request.result_text or "")


def _parts(queue: UserQueue, filters: Filters, cursor: Cursor | None, downwards: bool) -> Iterator[QuerySet[Request]]:
    """What the page is read from: those in line and those not (yet) in line, each in order, as far as they matter."""
    matching = _matching(queue, filters)
    in_line = matching.filter(seq__isnull=False).order_by("-seq" if downwards else "seq")
    beside = matching.filter(seq=None).order_by("-id" if downwards else "id")
    place = None if cursor is None else cursor.place
    if isinstance(place, UUID):
        beside = beside.filter(id__lt=place) if downwards else beside.filter(id__gt=place)
    elif place is not None:
        in_line = in_line.filter(seq__lt=place) if downwards else in_line.filter(seq__gt=place)
    parts = []
    if filters.status != Status.SCHEDULED and not (isinstance(place, UUID) and not downwards):
        parts += _within(in_line, queue, filters)
    if filters.status not in IN_LINE_ONLY and not (isinstance(place, int) and downwards):
        parts.append(beside)
    yield from reversed(parts) if downwards else parts


def _within(in_line: QuerySet[Request], queue: UserQueue, filters: Filters) -> list[QuerySet[Request]]:
    """Those in line, without the stretches that the times rule out, which would else be walked over one by one.

    Who comes gets time and place under one lock, so both grow together; only what was scheduled takes its place later.
    So nothing created after a moment stands before what came until then, and of what was created before a moment only
    scheduled requests stand behind what came from then on.
    """
    came = Request.objects.filter(queue_id=queue.id, not_before=None, seq__isnull=False)
    if filters.created_after is not None:
        until = came.filter(created_at__lt=_shifted(filters.created_after, -CLOCK_STEP)).order_by("-created_at")
        last = until.values_list("seq", flat=True).first()
        in_line = in_line if last is None else in_line.filter(seq__gt=last)
    if filters.created_before is None:
        return [in_line]
    since = came.filter(created_at__gt=_shifted(filters.created_before, CLOCK_STEP)).order_by("created_at")
    first = since.values_list("seq", flat=True).first()
    if first is None:
        return [in_line]
    return [in_line.filter(seq__lt=first), in_line.filter(seq__gt=first, not_before__isnull=False)]


def _shifted(moment: datetime, step: timedelta) -> datetime:
    """At the ends of the calendar there is nothing beyond to look for."""
    try:
        return moment + step
    except OverflowError:
        return moment


def _matching(queue: UserQueue, filters: Filters) -> QuerySet[Request]:
    """Those that pass the filters; what is not final lies above done_seq, so the finished ones are not looked at."""
    requests = as_text(Request.objects.filter(queue_id=queue.id))
    wanted: dict[str, Any] = {}
    head = queue.done_seq + 1
    match filters.status:
        case None:
            pass
        case Status.RUNNING | Status.BLOCKED:
            if queue.state != HEAD_IN[filters.status]:
                return requests.none()
            wanted |= {"seq": head, "finished_at": None}
        case Status.QUEUED | Status.RETRYING:
            first = head + (queue.state in HEAD_IN.values())
            wanted |= {"status": filters.status, "seq__gte": first}
        case Status.FAILED | Status.CANCELLED | Status.EXPIRED:
            wanted["given_up"] = filters.status
        case _:
            wanted["status"] = filters.status
    if filters.kind is not None:
        wanted["kind"] = filters.kind
    if filters.created_after is not None:
        wanted["created_at__gt"] = filters.created_after
    if filters.created_before is not None:
        wanted["created_at__lt"] = filters.created_before
    return requests.filter(**wanted)
