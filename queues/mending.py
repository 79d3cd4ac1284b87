"""Counters against rows: finds queues whose counters and rows disagree (a hand was in the tables), and mends them."""

from collections.abc import Iterator
from dataclasses import dataclass

from django.db.models import Max
from django.db.models.functions import Now

from queues.interventions import NotPossible, go_on, locked
from queues.models import Request, UserQueue
from queues.sql import Statement
from queues.states import OnFailure, QueueState, Status

TOMBSTONE = "(missing)"  # the kind of a row that stands for one that was deleted

# In one statement, so that what is compared is of one moment. Queues at rest are looked at only if `all`.
COMPARED = Statement("""
    SELECT q.id, q.last_seq, q.last_seq - q.done_seq AS owed, ahead.rows, ahead.newest
    FROM queues_userqueue q CROSS JOIN LATERAL (
        SELECT count(*) AS rows, coalesce(max(r.seq), q.done_seq) AS newest FROM queues_request r
        WHERE r.queue_id = q.id AND r.seq > q.done_seq) ahead
    WHERE q.id > %(after)s AND (q.active OR q.unpublished OR %(all)s) ORDER BY q.id LIMIT %(count)s
""")


@dataclass(frozen=True, slots=True)
class Mismatch:
    """A queue whose counters promise `owed` requests while `rows` are there, the newest with the number `newest`."""

    queue_id: int
    owed: int
    rows: int
    last_seq: int
    newest: int

    def __str__(self) -> str:
        if self.newest > self.last_seq:
            return f"queue {self.queue_id}: last_seq is {self.last_seq}, but a request has the number {self.newest}"
        return f"queue {self.queue_id}: {self.owed} requests should be there, {self.rows} rows are"


def compare(count: int, everywhere: bool = False) -> Iterator[tuple[int, list[Mismatch]]]:
    """Look at all queues that are not at rest, or at all; yields for each batch how many it had, and what is wrong."""
    after = 0
    while rows := COMPARED.rows(after=after, all=everywhere, count=count):
        after = rows[-1].id
        found = (Mismatch(r.id, r.owed, r.rows, r.last_seq, r.newest) for r in rows)
        wrong = [one for one in found if one.owed != one.rows or one.newest > one.last_seq]
        yield len(rows), wrong


def mend(queue_id: int) -> None:
    """Count again what there is, and fill each gap with a cancelled request, so that the queue can pass over it.

    Raises NotPossible while a worker has the queue.
    """
    with locked(queue_id) as queue:
        if queue.state == QueueState.DRAINING:
            raise NotPossible("A worker has the queue; pause it, and try again when its turn is over.")
        newest: int = queue.requests.aggregate(newest=Max("seq"))["newest"] or 0
        if newest > queue.last_seq:
            queue.last_seq = newest
            UserQueue.objects.filter(id=queue_id).update(last_seq=newest)
        there = set(queue.requests.filter(seq__gt=queue.done_seq).values_list("seq", flat=True))
        missing = [seq for seq in range(queue.done_seq + 1, queue.last_seq + 1) if seq not in there]
        Request.objects.bulk_create(_tombstone(queue, seq) for seq in missing)
        go_on(queue)


def _tombstone(queue: UserQueue, seq: int) -> Request:
    error = {"type": "Missing", "message": "The row was gone.", "at": queue.now.isoformat()}  # type: ignore[attr-defined]
    return Request(
        queue=queue, seq=seq, kind=TOMBSTONE, payload={}, status=Status.CANCELLED, max_attempts=1, error=error,
        on_failure=OnFailure.CONTINUE, finished_at=Now(),
    )  # fmt: skip
