"""What becomes of a queue whose worker died or was silent for longer than its lease."""

from datetime import timedelta
from functools import partial
from typing import Any

from django.db import transaction

from queues import event_log, kinds
from queues.exceptions import UnknownKind
from queues.lifecycle.locking import lock, write
from queues.metrics import count_lost
from queues.models import Attempt, Request
from queues.notify.changes import finished
from queues.signals import send_ended
from queues.sql.locks import wait_at_most
from queues.states import FINAL, AttemptOutcome, OnFailure, QueueState, Status


def recover(queue_id: int, fence: int, *, patience: float | None = None) -> bool:
    """Take the lease with that fence away and let the queue go on. Whether it wants a token; False: it moved meanwhile.

    `patience` is how many seconds it waits for each row that somebody else has locked, then it raises OperationalError
    (`queues.sql.statement.left_out` tells it); None: as long as the connection does.

    If one request was claimed, it was running: that counts as an attempt, or a request that kills its worker would
    kill workers for ever. If several were, nobody knows which; they are run again one by one, and the next crash tells.
    Nor is a last attempt counted at the queue's first crash, which any request beside it may have brought about: there
    is one more, alone.
    """
    with transaction.atomic():
        if patience is not None:
            wait_at_most(patience)
        queue = lock(queue_id, fence=fence, state=QueueState.DRAINING)
        if queue is None:
            return False
        first_crash = queue.crash_recovery_until_seq <= queue.done_seq
        queue.fence += 1
        queue.crash_recovery_until_seq = max(queue.crash_recovery_until_seq, queue.done_seq + max(1, queue.claimed))
        queue.state = QueueState.READY
        if queue.claimed == 1:
            head = queue.requests.filter(seq=queue.done_seq + 1).exclude(status__in=FINAL).first()
            if head is not None and not (first_crash and 1 < head.attempt + 1 == head.max_attempts):
                _count_lost_attempt(queue, head)
        if queue.claimed:  # to whoever looked on, the head had begun
            begun = queue.requests.filter(seq=queue.done_seq + 1, started_at=None, finished_at=None)
            begun.update(started_at=queue.claimed_at)
        if queue.state != QueueState.BLOCKED and queue.published_seq == queue.done_seq:
            queue.state, queue.idle_since, queue.wake_at = QueueState.IDLE, queue.now, None
        write(queue)
    finished(queue_id)
    return bool(queue.state == QueueState.READY and not queue.paused)


def _count_lost_attempt(queue: Any, head: Request) -> None:
    """The head's attempt ended with its worker; after the last one its kind's policy decides."""
    now = queue.now
    error = {
        "type": "WorkerLost",
        "message": "The worker died, or was silent for longer than its lease.",
        "at": now.isoformat(),
    }
    head.attempt += 1
    head.error = error
    head.started_at = head.started_at or queue.claimed_at
    Attempt.objects.create(
        request=head,
        number=head.attempt,
        started_at=queue.claimed_at or now,
        finished_at=now,
        outcome=AttemptOutcome.LOST,
        error=error,
    )
    if head.attempt < head.max_attempts:
        head.status = Status.RETRYING
        if head.attempt > 1:
            # Not the first worker this one may have killed: the others' requests come first for a while.
            queue.state = QueueState.WAITING
            queue.wake_at = now + timedelta(seconds=_delay(head))
    elif head.on_failure == OnFailure.BLOCK:
        head.status, queue.state = Status.RETRYING, QueueState.BLOCKED
    else:
        head.status, head.finished_at = Status.FAILED, now
        queue.done_seq += 1
        queue.moved_at = now
    fields = ("attempt", "error", "started_at", "status", "finished_at")
    Request.objects.filter(id=head.id).update(**{name: getattr(head, name) for name in fields})
    transaction.on_commit(partial(count_lost, head.kind, head.finished_at is not None))
    transaction.on_commit(partial(event_log.lost, queue, head))
    if head.finished_at is not None:
        transaction.on_commit(partial(send_ended, [(queue.user_id, head)]))


def _delay(head: Request) -> float:
    try:
        return kinds.find(head.kind, head.version).delay(head.attempt)
    except UnknownKind:
        return 1.0
