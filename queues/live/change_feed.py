"""What is new in a queue since it was last looked at: each change as an event, whose id names what was told so far.

Everything is read from PostgreSQL, so hints may be lost and streams may end and go on elsewhere: at the latest the next
look finds what changed. Of what changed more than once between two looks, the newest state is told.
"""

import re
from dataclasses import dataclass, field, replace
from typing import Any, Self
from uuid import UUID

import orjson

from accounts.tokens import Claims
from project.rest.renderers import OPTIONS
from queues.enqueue.accept import open_queue
from queues.exceptions import SessionOver
from queues.models import UserQueue
from queues.representation import shape
from queues.representation.queue_summary import Summary, summary
from queues.representation.rows import RequestRow, count_given_up_between, queue_of, request_of
from queues.sql.reads import CHANGED_REQUESTS, GIVEN_UP_BESIDE, QUEUE_NOW
from queues.states import FINAL, Status

ROWS = 32  # of each sort in one look ..
LARGEST_BYTES = 1024 * 1024  # .. which ends with the event that makes it longer than this ..
FEW_ROWS = 4  # .. so that the next one reads no more than these: others wait for a look meanwhile
MOST_MISSED = 5000  # places; who was away for longer begins anew
MOST_BESIDE = 100  # likewise, requests that were given up without ever having had a place
OVERLAP_SECONDS = 60  # what was ended by a transaction that began before a look, and was committed after it


@dataclass(frozen=True, slots=True)
class EventId:
    """How much of a queue was told: everything final up to `done`, the accepting of all up to `last`, and what was
    given up out of turn until `at` (milliseconds since the epoch, the database's clock)."""

    done: int
    last: int
    at: int

    def __str__(self) -> str:
        return f"{self.done}-{self.last}-{self.at}"

    @classmethod
    def read(cls, text: str) -> Self | None:
        """The place that an event's id names; None when it is no id of ours."""
        numbers = re.fullmatch(r"(\d{1,18})-(\d{1,18})-(\d{1,14})", text, re.ASCII)
        return cls(*map(int, numbers.groups())) if numbers else None

    def within(self, queue: UserQueue, now: int) -> bool:
        """Whether that much can have been told of this queue, and not too long ago to go on from there."""
        told = self.done <= self.last <= queue.last_seq and self.done <= queue.done_seq and self.at <= now
        return told and queue.last_seq - self.done <= MOST_MISSED


@dataclass(slots=True)
class ClientState:
    """What the client knows beyond its place. At most as much as a queue holds."""

    head: tuple[Any, ...] = ()
    running: dict[str, Any] | None = None
    queue: Summary | None = None
    ended: set[int] = field(default_factory=set)  # places ahead of `done` that are final
    scheduled: set[UUID] = field(default_factory=set)


class Follower:
    """Follows one queue for one session of its owner. `last_id` is the id of the last event they know, if any."""

    def __init__(self, claims: Claims, last_id: str = "") -> None:
        self.claims = claims
        self.queue_id = 0
        self.place = EventId.read(last_id)
        self.fresh = self.place is None  # the client begins anew: with the queue and everything that is not final
        self.begun = False  # there was a look
        self.first = True  # not all of what is told at the beginning was told
        self.client = ClientState()
        self.more = True  # the last look was full: look again
        self.rows = ROWS

    def next_events(self) -> bytes:
        """The events of what is new. Raises SessionOver."""
        shown = summary(self.claims.user_id, self.claims.session_id)
        if not self.queue_id:
            self.queue_id = open_queue(self.claims.user_id)
        row = QUEUE_NOW.row(queue=self.queue_id)
        queue = queue_of(row) if row else None
        if row is None or queue is None:
            raise SessionOver  # the user was erased
        now = int(row.now * 1000)
        beside = b"" if self.begun else self._begin(queue, now)
        place = self.place or EventId(queue.done_seq, queue.done_seq, now)
        return self._queue(place, shown) + beside + self._requests(place, queue, now)

    def progress(self, request_id: str, progress: bytes) -> bytes | None:
        """The event of a running request's progress; None: that is not what the client believes to run, so look."""
        running = self.client.running
        if running is None or self.place is None or str(running["id"]) != request_id:
            return None
        running["progress"] = told = orjson.loads(progress)
        self.client.head = (*self.client.head[:-1], told)
        return event("request", self.place, running)

    def _begin(self, queue: UserQueue, now: int) -> bytes:
        """Go on where the client is, or anew when that is too far behind or none of ours."""
        self.begun = True
        beside = b""
        if self.place is not None and self.place.within(queue, now):
            since = self.place.at / 1000 - OVERLAP_SECONDS
            rows = GIVEN_UP_BESIDE.rows(queue=queue.id, since=since, rows=MOST_BESIDE + 1)
            if len(rows) <= MOST_BESIDE:
                shown = [shape.one(request_of(row, queue)) for row in rows]
                return beside.join(event("request", self.place, one) for one in shown)
        self.place, self.fresh = None, True
        return beside

    def _queue(self, place: EventId, shown: Summary) -> bytes:
        """The event of the queue, unless nothing but the pace is new."""
        steady = replace(shown, finished_per_minute=0, eta_seconds=None)
        if steady == self.client.queue:
            return b""
        self.client.queue = steady
        return event("queue", place, shown)

    def _requests(self, place: EventId, queue: UserQueue, now: int) -> bytes:
        events = bytearray()
        rows = CHANGED_REQUESTS.rows(
            queue=queue.id,
            done=place.done,
            last=place.last,
            head=queue.done_seq + 1,
            ended=list(self.client.ended),
            scheduled=list(self.client.scheduled),
            rows=self.rows,
        )
        full = len(rows) >= self.rows
        self.rows = ROWS
        found = [one for row in rows if (one := request_of(row, queue))]  # none is missing: it is not joined
        count_given_up_between(queue, found)
        for request in found:
            place, news = self._tell(place, queue, request)
            events += news
            if len(events) > LARGEST_BYTES:
                full, self.rows = True, FEW_ROWS
                break
        if not full:
            place = EventId(queue.done_seq, max(place.last, queue.done_seq), max(place.at, now))
            self.client.ended = {seq for seq in self.client.ended if seq > place.done}
            self.first = False
        self.place, self.more = place, full
        return bytes(events)

    def _tell(self, place: EventId, queue: UserQueue, request: RequestRow) -> tuple[EventId, bytes]:
        """How far it brings the client, and the event, if they do not know it yet."""
        seq, final = request.seq, request.status in FINAL
        known = False
        if seq is None and not final:
            self.client.scheduled.add(request.id)
        else:
            self.client.scheduled.discard(request.id)
        if seq is not None and seq <= queue.done_seq:
            known = seq in self.client.ended
            place = replace(place, done=seq, last=max(seq, place.last))
        elif seq is not None:
            known = self._known(place, request, seq)
            if final:
                self.client.ended.add(seq)
            place = replace(place, last=max(seq, place.last))
        if known:
            return place, b""
        shown = shape.one(request)
        if seq == queue.done_seq + 1 and not final:
            asked = request.cancel_asked_at is not None
            head = (seq, request.status_now, request.attempt, request.max_attempts, asked, shown["progress"])
            if head == self.client.head:
                return place, b""
            self.client.head = head
            self.client.running = shown if request.running else None
        return place, event("request", place, shown)

    def _known(self, place: EventId, request: RequestRow, seq: int) -> bool:
        """Whether the client knows already how a request stands that is the head, new, or given up amid the line."""
        if request.finished_at is None:
            waits = request.status_now == Status.QUEUED and request.attempt == 0
            return waits and not self.first and seq <= place.last and self.client.head[:1] != (seq,)
        if seq in self.client.ended or not self.first:
            return seq in self.client.ended
        if self.fresh:
            return seq > place.last  # it was over when the client began
        return seq <= place.last and request.finished_at.timestamp() < place.at / 1000 - OVERLAP_SECONDS


def event(name: str, place: EventId, data: Any) -> bytes:
    """One Server-Sent Event. Line breaks in JSON that is passed on as it came are white space between its parts."""
    text = orjson.dumps(data, option=OPTIONS).replace(b"\n", b" ").replace(b"\r", b" ")
    return b"event: %b\nid: %b\ndata: %b\n\n" % (name.encode(), str(place).encode(), text)
