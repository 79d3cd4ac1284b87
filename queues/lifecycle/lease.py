"""A worker's right to run users' queues, for a time: taken, used and given back here and nowhere else.

Many are taken with one statement, and what came of many is recorded with one: each row keeps its own fence.
"""

import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple, Self
from uuid import UUID

import orjson
from django.conf import settings

from queues.exceptions import FencedOut
from queues.sql.locks import TRY_LOCK_NUMBER
from queues.sql.protocol import (
    CLAIMED,
    KEEP_BEGINNINGS,
    LEASE,
    LEASE_TOGETHER,
    LEASED,
    RECORD,
    RECORD_TOGETHER,
    RENEW,
    REPUBLISH,
)
from queues.states import QueueState, Status
from queues.values import Next, Outcome, Work

WORKERS = 0x6F776B72  # "owkr": the class of the advisory locks that live workers hold
ANSWER_SECONDS = 1.5  # an answer to the asking for a lease that took longer counts as a refusal: see reconcile.py


class Lease:
    """Held by one worker thread; every write names its fence, so that a holder who lost it writes nothing."""

    def __init__(self, row: Any, asked: float) -> None:
        self.asked = asked  # when, on the monotonic clock
        self.queue_id: int = row.queue_id
        self.user_id: UUID = row.user_id
        self.generation: int = row.generation
        self.fence: int = row.fence
        self.done_seq: int = row.done_seq
        self.published_seq: int = row.published_seq
        self.crash_recovery_until_seq: int = row.crash_recovery_until_seq
        self.taken_at: datetime = row.claimed_at
        self.received = time.monotonic()  # that was then
        self.since = self.taken_at  # when the head was claimed: its attempt begins with that
        self.state, self.paused = QueueState.DRAINING, False
        self.came_along = _works([row])  # what is claimed, if that is little; without what somebody had locked

    @classmethod
    def take(cls, queue_id: int, worker_id: int, left: int | None = None) -> Self | None:
        """ready -> draining, with the head claimed. None: the queue is not ready, so the token was one too many.

        `left` is the fence of a lease whose holder leaves the queue to this one.
        """
        asked = time.monotonic()
        (row,) = LEASE.rows(**_asked_for([queue_id], worker_id), left=left)
        return None if row.queue_id is None else cls(row, asked)

    @property
    def came_in_time(self) -> bool:
        """Whether its answer is no older than one may be that nobody gives back. Asked once its holder knows it."""
        return time.monotonic() - self.asked <= ANSWER_SECONDS

    def now(self) -> datetime:
        """The database's clock, carried on by this machine's monotonic one: a wrong clock here changes nothing."""
        return self.taken_at + timedelta(seconds=time.monotonic() - self.received)

    @property
    def careful(self) -> bool:
        """Whether a worker died here lately: run one request, record it, then the next."""
        return self.done_seq < self.crash_recovery_until_seq

    @property
    def waiting(self) -> int:
        """How many requests without an outcome RabbitMQ has, as far as is known here."""
        return self.published_seq - self.done_seq

    @property
    def last_chance(self) -> bool:
        """Whether the head's attempts ended with a worker here, but for one that is left."""
        heads = self.came_along if self.careful else ()
        return any(head.finished_at is None and 1 < head.attempt + 1 == head.max_attempts for head in heads)

    def has(self, count: int) -> bool:
        """Whether all came along of so many that are claimed."""
        return len(self.came_along) == min(count, self.waiting)

    def claimed(self, count: int) -> list[Work]:
        """The first `count` requests without an outcome; as `claimed`."""
        return claimed([(self, count)])[self.queue_id]

    def record(
        self,
        passed: int,
        outcomes: Sequence[Outcome],
        then: Next,
        claim: int = 0,
        delay: float | None = None,
        began: datetime | None = None,
    ) -> None:
        """Record by itself, and wait for the row if somebody has locked it; as `Record` says. Raises FencedOut."""
        record = Record(self, passed, outcomes, then, claim, delay, began)
        rows = RECORD.rows(**_told_of([record]))
        if not rows[0].recorded:
            raise FencedOut
        self.recorded(record, rows)

    def recorded(self, record: "Record", rows: Sequence[Any]) -> None:
        """Where the queue stands after that."""
        self.done_seq, row = self.done_seq + record.passed, rows[0]
        self.published_seq = row.published
        self.state, self.paused, self.since = QueueState(row.state), row.paused, row.since
        self.came_along = _works(rows)
        if record.began is None:
            # Both clocks meet here anew, or what begins after the head would seem to have begun before it.
            self.taken_at, self.received = row.since, time.monotonic()

    def catch_up(self) -> int:
        """After a record whose answer was lost: how far done_seq moved, had it been committed. Raises FencedOut."""
        row = LEASED.row(queue=self.queue_id, fence=self.fence)
        if row is None:
            raise FencedOut
        moved: int = row.done_seq - self.done_seq
        self.done_seq, self.published_seq = row.done_seq, row.published_seq
        self.state, self.paused, self.since, self.came_along = QueueState(row.state), row.paused, row.since, []
        return moved

    def republish(self) -> bool:
        """Go idle and have all published again: the broker lost it. False: more came meanwhile, or fenced out."""
        row = REPUBLISH.row(queue=self.queue_id, fence=self.fence, published=self.published_seq)
        return row is not None

    def renew(self, seq: int) -> bool:
        """Keep the lease; whether its owner wants the request at `seq` cancelled. Raises FencedOut."""
        return renew([(self.queue_id, self.fence, seq)])[self.queue_id]


class Record(NamedTuple):
    """What is to be written under a lease: `outcomes`, done_seq moved on by `passed`, and how the queue goes on.

    `then`: draining claims the next `claim` requests, and the first `along` come with it; waiting is for `delay`
    seconds. A queue with nothing left goes idle when `then` is draining or ready; the lease's state tells. `began` is
    when the attempt began that runs already, of what is the head then; None: it begins now.
    """

    lease: Lease
    passed: int
    outcomes: Sequence[Outcome]
    then: Next
    claim: int = 0
    delay: float | None = None
    began: datetime | None = None
    along: int = 0


class Recorded(NamedTuple):
    """Whose records were not written: fenced out for good, or left out because somebody has locked the row."""

    fenced_out: list[Record]
    left_out: list[Record]


def take_together(queue_ids: Iterable[int], worker_id: int) -> tuple[list[Lease], list[int]]:
    """The leases of those that are ready, in one commit that waits for no lock; and which of the others may be had by
    `Lease.take`: their row is locked, or a worker died there.
    """
    asked = time.monotonic()
    rows = LEASE_TOGETHER.rows(**_asked_for(queue_ids, worker_id))
    return [Lease(row, asked) for row in rows if row.queue_id is not None], [row.asked for row in rows if row.left_out]


def record_together(records: Sequence[Record]) -> Recorded:
    """Record all in one commit that waits for no queue's lock; the leases tell where each queue stands."""
    by_queue = {record.lease.queue_id: record for record in records}
    told = defaultdict(list)
    for row in RECORD_TOGETHER.rows(**_told_of(sorted(records, key=lambda record: record.lease.queue_id))):
        told[row.queue].append(row)
    found = Recorded([], [])
    for queue_id, rows in told.items():
        record = by_queue[queue_id]
        if rows[0].recorded:
            record.lease.recorded(record, rows)
        else:
            (found.left_out if rows[0].left_out else found.fenced_out).append(record)
    return found


def claimed(claims: Sequence[tuple[Lease, int]]) -> dict[int, list[Work]]:
    """By queue, the first so many requests without an outcome, in order, of those that RabbitMQ has.

    They were claimed by a record before. What is not published yet is left alone: waiting for it would hold up the
    recording of the others.
    """
    asked = [
        {"queue": lease.queue_id, "done": lease.done_seq, "count": min(count, lease.waiting)} for lease, count in claims
    ]
    found: dict[int, list[Work]] = {lease.queue_id: [] for lease, _ in claims}
    for row in CLAIMED.rows(claims=orjson.dumps(asked).decode()):
        found[row.queue].append(_work(row))
    return found


class Renewals(dict[int, bool]):
    """By queue, whether the request that runs is to be cancelled. Raises FencedOut for a queue that is another's."""

    def __missing__(self, queue_id: int) -> bool:
        raise FencedOut


def renew(held: Sequence[tuple[int, int, int]]) -> Renewals:
    """Keep these leases: queue, fence, and the sequence number that runs. Waits for no lock: one that is locked keeps
    the time it has.
    """
    rows = RENEW.rows(
        held=orjson.dumps([dict(zip(("id", "fence", "seq"), one, strict=True)) for one in held]).decode(),
        seconds=settings.ENV.lease_seconds,
    )
    return Renewals((row.id, row.cancelled) for row in rows)


def keep_beginnings(began: Sequence[tuple[UUID, datetime]]) -> None:
    """Keep when each request's first attempt began, although no outcome of that attempt will be recorded.

    Waits for no lock: what is locked keeps none.
    """
    KEEP_BEGINNINGS.rows(began=orjson.dumps([{"request": id_, "at": at} for id_, at in began]).decode())


def hold_process_lock(worker_id: int) -> bool:
    """Take the lock that says this worker process lives; it goes with the connection. False: another has it."""
    (row,) = TRY_LOCK_NUMBER.rows(lock_class=WORKERS, number=worker_id)
    return bool(row.locked)


def _asked_for(queue_ids: Iterable[int], worker_id: int) -> dict[str, Any]:
    """What LEASE and LEASE_TOGETHER are asked with."""
    return {
        "asked": orjson.dumps([{"id": id_} for id_ in queue_ids]).decode(),
        "worker_id": worker_id,
        "seconds": settings.ENV.lease_seconds,
    }


def _work(row: Any) -> Work:
    """What the last columns of LEASE, CLAIMED and RECORD are."""
    return Work._make(row[-len(Work._fields) :])


def _works(rows: Sequence[Any]) -> list[Work]:
    return [_work(row) for row in rows if row.seq is not None]


def _told_of(records: Sequence[Record]) -> dict[str, Any]:
    """What RECORD and RECORD_TOGETHER are told."""
    return {
        "records": orjson.dumps(
            [
                {
                    "queue": record.lease.queue_id,
                    "fence": record.lease.fence,
                    "done": record.lease.done_seq,
                    "passed": record.passed,
                    "final": record.passed - sum(one.status != Status.RETRYING for one in record.outcomes),
                    "next": record.then,
                    "claim": record.claim,
                    "along": record.along,
                    "began": record.began,
                    "delay": record.delay,
                    "bytes": sum(len(one.result.encode()) for one in record.outcomes if one.result is not None),
                }
                for record in records
            ]
        ).decode(),
        "outcomes": orjson.dumps([_told(record, one) for record in records for one in record.outcomes]).decode(),
        "seconds": settings.ENV.lease_seconds,
    }


def _told(record: Record, outcome: Outcome) -> dict[str, Any]:
    """An outcome as RECORD reads it; JSON inside is text, so that PostgreSQL stores it as it is."""
    told = {
        "queue": record.lease.queue_id,
        "seq": outcome.seq,
        "status": outcome.status,
        "result": outcome.result,
        "error": None if outcome.error is None else orjson.dumps(outcome.error).decode(),
        "attempt": outcome.attempt,
        "outcome": outcome.outcome,
        "started_at": outcome.started_at,
        "finished_at": outcome.finished_at,
    }
    if outcome.traceback is not None:  # most have none, and each name in the text costs
        told["traceback"] = outcome.traceback
    return told
