"""Counters against rows: finds queues whose counters and rows disagree (a hand was in the tables), and mends them.

What is mended never runs a request that may have run, and lets nothing overtake.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from uuid import UUID

from django.db.models import F, Max, Min, Sum
from django.db.models.functions import Now

from queues import event_log
from queues.exceptions import NotPossible
from queues.lifecycle.control import end, go_on, locked
from queues.models import Request, UserQueue
from queues.sql.maintenance import COMPARE_COUNTERS
from queues.states import OnFailure, QueueState, Status

TOMBSTONE = "(missing)"  # the kind of a row that stands for one that was deleted

LOOK_BACK, FOR_EVER = 1_000, 2**62  # numbers behind the head of a queue
MOST_MISSING = 10_000  # rows of a queue that are stood in for; where more lack, a counter is wrong


@dataclass(frozen=True, slots=True)
class Mismatch:
    """A queue whose counters promise `owed` requests while `rows` are there, the newest with the number `newest`.

    Or one that says that `given_up_ahead` of them are final while `final` are; or one that has passed `passed`
    requests, `first` before the others, although they have no outcome; or whose `bytes_stored` are not the
    `kept` ones of its rows (None: they were not added up).
    """

    queue_id: int
    done_seq: int
    last_seq: int
    owed: int
    rows: int
    newest: int
    given_up_ahead: int
    final: int
    passed: int
    first: UUID | None
    bytes_stored: int
    kept: int | None

    @property
    def wrong(self) -> bool:
        counted = self.owed == self.rows and self.newest <= self.last_seq and self.given_up_ahead == self.final
        return not counted or self.passed > 0 or self.miscounted

    @property
    def miscounted(self) -> bool:
        return self.kept is not None and self.kept != self.bytes_stored

    def __str__(self) -> str:
        told = []
        if self.newest > self.last_seq:
            told.append(f"last_seq is {self.last_seq}, but a request has the number {self.newest}")
        elif self.owed != self.rows:
            told.append(f"{self.owed} requests should be there, {self.rows} rows are")
        if self.given_up_ahead != self.final:
            told.append(f"given_up_ahead is {self.given_up_ahead}, but of what is ahead {self.final} are final")
        if self.passed:
            also = f" and {self.passed - 1} more" if self.passed > 1 else ""
            told.append(f"it has passed request {self.first}{also} without an outcome (done_seq is {self.done_seq})")
        if self.miscounted:
            told.append(f"bytes_stored is {self.bytes_stored}, but its requests have {self.kept}")
        return f"queue {self.queue_id}: {'; '.join(told)}"


def compare(count: int, everywhere: bool = False) -> Iterator[tuple[int, list[Mismatch]]]:
    """Look at queues that are not at rest, at the LOOK_BACK newest of what they have passed, or at everything.

    Yields for each batch how many queues it had, and what is wrong.
    """
    after, look_back = 0, FOR_EVER if everywhere else LOOK_BACK
    while rows := COMPARE_COUNTERS.rows(after=after, all=everywhere, look_back=look_back, count=count):
        after = rows[-1].id
        found = (Mismatch(*row) for row in rows)
        yield len(rows), [one for one in found if one.wrong]


def mend(queue_id: int) -> None:
    """End what the queue has passed without an outcome, correct its counters, and fill each gap with a cancelled one.

    Raises NotPossible while a worker has the queue (but for what it has passed), or where so much is missing that
    somebody has to look.
    """
    passed = Request.objects.filter(queue=queue_id, seq__lte=F("queue__done_seq"), finished_at=None)
    first = passed.aggregate(first=Min("seq"))["first"]  # read before the lock: there may be millions behind the head
    if first is not None:
        with locked(queue_id) as queue:
            _end_passed(queue, first)
    with locked(queue_id) as queue:
        UserQueue.objects.filter(id=queue_id).update(bytes_stored=queue.requests.aggregate(n=Sum("bytes"))["n"] or 0)
    with locked(queue_id) as queue:
        newest = max(queue.done_seq, queue.requests.aggregate(newest=Max("seq"))["newest"] or 0)
        ahead = queue.requests.filter(seq__gt=queue.done_seq)
        if newest > queue.last_seq or _owed(queue) != ahead.count():
            if queue.state == QueueState.DRAINING:
                raise NotPossible("A worker has the queue; pause it, and try again when its turn is over.")
            _correct_last_seq(queue, newest)
            _fill_gaps(queue)
        queue.given_up_ahead = ahead.filter(finished_at__isnull=False).count()
        go_on(queue)


def _owed(queue: UserQueue) -> int:
    """How many rows the counters promise ahead of done_seq."""
    return queue.last_seq - queue.done_seq


def _end_passed(queue: UserQueue, first: int) -> None:
    """From that number on, as failed: whether they ran nobody knows; their owner decides whether to retry them."""
    passed = queue.requests.filter(seq__gte=first, seq__lte=queue.done_seq, finished_at=None)
    told = list(passed.only("seq", "kind", "attempt", "trace"))
    message = "The queue went on without an outcome of this request. Whether it ran is not known; retry it if it may."
    end(passed, Status.FAILED, error=_error(queue, "Passed", message))
    for request in told:
        event_log.intervened("failed", queue, request, error="Passed")


def _correct_last_seq(queue: UserQueue, newest: int) -> None:
    """Up to the newest row; down to it where it is so far away that it counts nothing."""
    if not queue.last_seq - MOST_MISSING <= newest <= queue.last_seq:
        queue.last_seq, queue.published_seq = newest, min(queue.published_seq, newest)
        if queue.published_seq == queue.done_seq:
            queue.state, queue.wake_at, queue.idle_since = QueueState.IDLE, None, queue.now  # type: ignore[attr-defined]
        queue.save(update_fields=["last_seq", "published_seq", "state", "wake_at", "idle_since"])


def _fill_gaps(queue: UserQueue) -> None:
    there = set(queue.requests.filter(seq__gt=queue.done_seq).values_list("seq", flat=True))
    lacking = _owed(queue) - len(there)
    if lacking > MOST_MISSING:
        raise NotPossible(
            f"{lacking} rows are missing between done_seq, {queue.done_seq}, and the newest request, {queue.last_seq}:"
            " one of these numbers is wrong."
        )
    missing = (seq for seq in range(queue.done_seq + 1, queue.last_seq + 1) if seq not in there)
    Request.objects.bulk_create(_tombstone(queue, seq) for seq in missing)


def _tombstone(queue: UserQueue, seq: int) -> Request:
    error = _error(queue, "Missing", "The row was gone.")
    return Request(
        queue=queue, seq=seq, kind=TOMBSTONE, payload={}, status=Status.CANCELLED, max_attempts=1, error=error,
        on_failure=OnFailure.CONTINUE, finished_at=Now(),
    )  # fmt: skip


def _error(queue: UserQueue, name: str, message: str) -> dict[str, str]:
    return {"type": name, "message": message, "at": queue.now.isoformat()}  # type: ignore[attr-defined]
