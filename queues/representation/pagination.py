"""Pages of a user's requests, by sequence: the newest first, or in the order in which they run.

What has no sequence number (scheduled, or given up before it was due) stands at the new end, by its id. A page is read
from an index at a place the cursor names, so the thousandth costs what the first does.
"""

import base64
import binascii
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Self
from uuid import UUID

from project.rest.problems import FieldError, Invalid
from queues.models import UserQueue
from queues.representation.rows import RequestRow, count_given_up_between
from queues.sql.pages import FIRST_AFTER, LAST_BEFORE, PartOf, Where, page_statement
from queues.states import QueueState, Status

AT_A_TIME = 51  # a usual page, and one that says whether more come
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
    def at(cls, request: RequestRow, *, back: bool = False) -> Self:
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
    requests: list[RequestRow]
    next: Cursor | None
    previous: Cursor | None


@dataclass(frozen=True, slots=True)
class Filters:
    status: Status | None = None
    kind: str | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None


@dataclass(frozen=True, slots=True)
class Part:
    """A stretch of a page: the requests of a queue that meet all of some conditions, in the order of one column."""

    by: str
    conditions: tuple[Where, ...]
    values: dict[str, Any]
    after: Any = None  # the place after which it begins, in the direction in which it is read

    def where(self, *conditions: Where, **values: Any) -> "Part":
        """The same, with further conditions."""
        return replace(self, conditions=(*self.conditions, *conditions), values={**self.values, **values})

    def beyond(self, place: Any) -> "Part":
        """What of it comes after that place."""
        return replace(self, after=place)


def page(queue: UserQueue, filters: Filters, cursor: Cursor | None, limit: int, *, newest_first: bool) -> Page:
    """The requests of a queue that pass the filters, at most `limit` and some megabytes of them, from the cursor on."""
    back = cursor is not None and cursor.back
    downwards = newest_first != back
    found: list[RequestRow] = []
    left = LARGEST_PAGE_BYTES
    for request in _read(queue, list(_parts(queue, filters, cursor, downwards)), limit + 1, downwards):
        found.append(request)
        left -= len(request.payload_text) + len(request.result_text or "")
        if left < 0:
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


def _read(queue: UserQueue, parts: Sequence[Part], most: int, downwards: bool) -> Iterator[RequestRow]:
    """The first requests of the parts, a few at a time: a result may have a megabyte, and a page has two hundred."""
    while parts and most > 0:
        asked = min(most, AT_A_TIME)
        values = {name: value for part in parts for name, value in part.values.items()}
        places = {f"beyond{n}": part.after for n, part in enumerate(parts) if part.after is not None}
        asked_by = tuple(PartOf(part.conditions, part.by, part.after is not None) for part in parts)
        rows = page_statement(asked_by, downwards).tuples(queue=queue.id, most=asked, **values, **places)
        some = [RequestRow(row, queue) for row in rows]
        yield from some
        if len(some) < asked:
            return
        most -= asked
        at = rows[-1][-1]  # the part that the last one is of
        parts = [parts[at].beyond(getattr(some[-1], parts[at].by)), *parts[at + 1 :]]


def _parts(queue: UserQueue, filters: Filters, cursor: Cursor | None, downwards: bool) -> Iterator[Part]:
    """What the page is read from: those in line and those not (yet) in line, each in order, as far as they matter."""
    conditions, values = _matching(queue, filters)
    if conditions is None:
        return
    in_line = Part("seq", (*conditions, Where.IN_LINE), values)
    beside = Part("id", (*conditions, Where.BESIDE_LINE), values)
    place = None if cursor is None else cursor.place
    if isinstance(place, UUID):
        beside = beside.beyond(place)
    elif place is not None:
        in_line = in_line.beyond(place)
    parts = []
    if filters.status != Status.SCHEDULED and not (isinstance(place, UUID) and not downwards):
        parts += _within(in_line, queue, filters)
    if filters.status not in IN_LINE_ONLY and not (isinstance(place, int) and downwards):
        parts.append(beside)
    yield from reversed(parts) if downwards else parts


def _within(in_line: Part, queue: UserQueue, filters: Filters) -> list[Part]:
    """Those in line, without the stretches that the times rule out, which would else be walked over one by one.

    Who comes gets time and place under one lock, so both grow together; only what was scheduled takes its place later.
    So nothing created after a moment stands before what came until then, and of what was created before a moment only
    scheduled requests stand behind what came from then on.
    """
    if filters.created_after is not None:
        last = LAST_BEFORE.row(queue=queue.id, moment=_shifted(filters.created_after, -CLOCK_STEP))
        in_line = in_line if last is None else in_line.where(Where.AFTER_LAST, last=last.seq)
    if filters.created_before is None:
        return [in_line]
    first = FIRST_AFTER.row(queue=queue.id, moment=_shifted(filters.created_before, CLOCK_STEP))
    if first is None:
        return [in_line]
    behind = in_line.where(Where.AFTER_FIRST, Where.WAS_SCHEDULED, first=first.seq)
    return [in_line.where(Where.BEFORE_FIRST, first=first.seq), behind]


def _shifted(moment: datetime, step: timedelta) -> datetime:
    """At the ends of the calendar there is nothing beyond to look for."""
    try:
        return moment + step
    except OverflowError:
        return moment


def _matching(queue: UserQueue, filters: Filters) -> tuple[list[Where] | None, dict[str, Any]]:
    """The conditions that the filters make, and their values; None: nothing passes.

    What is not final lies above done_seq, so the finished ones are not looked at.
    """
    conditions: list[Where] = []
    values: dict[str, Any] = {}
    head = queue.done_seq + 1
    match filters.status:
        case None:
            pass
        case Status.RUNNING | Status.BLOCKED:
            if queue.state != HEAD_IN[filters.status]:
                return None, {}
            conditions += [Where.HEAD, Where.NOT_FINAL]
            values["head"] = head
        case Status.QUEUED | Status.RETRYING:
            conditions += [Where.STATUS, Where.FROM_HEAD]
            values |= {"status": str(filters.status), "head": head + (queue.state in HEAD_IN.values())}
        case Status.FAILED | Status.CANCELLED | Status.EXPIRED:
            conditions.append(Where.GIVEN_UP)
            values["status"] = str(filters.status)
        case _:
            conditions.append(Where.STATUS)
            values["status"] = str(filters.status)
    if filters.kind is not None:
        conditions.append(Where.KIND)
        values["kind"] = filters.kind
    if filters.created_after is not None:
        conditions.append(Where.CREATED_AFTER)
        values["created_after"] = filters.created_after
    if filters.created_before is not None:
        conditions.append(Where.CREATED_BEFORE)
        values["created_before"] = filters.created_before
    return conditions, values
