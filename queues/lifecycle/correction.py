"""Brings the counters and rows of a queue together again, where a hand was in the tables.

It never runs a request that may have run, and lets nothing overtake.
"""

from typing import Any

from django.db.models import F, Max, Min, Sum
from django.db.models.functions import Now

from queues import event_log
from queues.exceptions import NotPossible
from queues.lifecycle.control import go_on
from queues.lifecycle.ending import end
from queues.lifecycle.locking import locked
from queues.models import Request
from queues.sql.control import END_IN_LINE
from queues.states import OnFailure, QueueState, Status

TOMBSTONE = "(missing)"  # the kind of a row that stands for one that was deleted
MOST_MISSING = 10_000  # rows of a queue that are stood in for; where more lack, a counter is wrong


def correct(queue_id: int) -> None:
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
        queue.bytes_stored = queue.requests.aggregate(n=Sum("bytes"))["n"] or 0
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


def _owed(queue: Any) -> int:
    """How many rows the counters promise ahead of done_seq."""
    return int(queue.last_seq - queue.done_seq)


def _end_passed(queue: Any, first: int) -> None:
    """From that number on, as failed: whether they ran nobody knows; their owner decides whether to retry them."""
    message = "The queue went on without an outcome of this request. Whether it ran is not known; retry it if it may."
    error = _error(queue, "Passed", message)
    for row in end(END_IN_LINE, Status.FAILED, error, queue=queue.pk, first=first, last=queue.done_seq):
        event_log.intervened("failed", queue, row, error="Passed")


def _correct_last_seq(queue: Any, newest: int) -> None:
    """Up to the newest row; down to it where it is so far away that it counts nothing."""
    if not queue.last_seq - MOST_MISSING <= newest <= queue.last_seq:
        queue.last_seq, queue.published_seq = newest, min(queue.published_seq, newest)
        if queue.published_seq == queue.done_seq:
            queue.state, queue.wake_at, queue.idle_since = QueueState.IDLE, None, queue.now


def _fill_gaps(queue: Any) -> None:
    there = set(queue.requests.filter(seq__gt=queue.done_seq).values_list("seq", flat=True))
    lacking = _owed(queue) - len(there)
    if lacking > MOST_MISSING:
        raise NotPossible(
            f"{lacking} rows are missing between done_seq, {queue.done_seq}, and the newest request, {queue.last_seq}:"
            " one of these numbers is wrong."
        )
    missing = (seq for seq in range(queue.done_seq + 1, queue.last_seq + 1) if seq not in there)
    Request.objects.bulk_create(_tombstone(queue, seq) for seq in missing)


def _tombstone(queue: Any, seq: int) -> Request:
    error = _error(queue, "Missing", "The row was gone.")
    return Request(
        queue=queue, seq=seq, kind=TOMBSTONE, payload={}, status=Status.CANCELLED, max_attempts=1, error=error,
        on_failure=OnFailure.CONTINUE, finished_at=Now(),
    )  # fmt: skip


def _error(queue: Any, name: str, message: str) -> dict[str, str]:
    return {"type": name, "message": message, "at": queue.now.isoformat()}
