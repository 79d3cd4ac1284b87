"""What owners and operators do to a queue while it runs: cancel, retry, skip, pause, resume, limit, purge, republish.

Each verb locks the queue's row, looks, and changes it in one transaction; a worker's lease and record wait for the
same lock. What a worker has claimed is never taken away from it, only asked for.
"""

from functools import partial
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import F, TextField
from django.db.models.functions import Cast, Now

from queues import event_log, kinds
from queues.enqueue.accept import accept
from queues.exceptions import NotPossible, UnknownKind
from queues.lifecycle import permits
from queues.lifecycle.ending import end
from queues.lifecycle.locking import locked
from queues.models import Request, UserQueue
from queues.notify.changes import finished
from queues.notify.hints import work_waits
from queues.sql.control import END_ALL_SCHEDULED, END_IN_LINE, END_SCHEDULED
from queues.sql.locks import with_patience
from queues.states import QueueState, Status
from queues.values import Accepted, Submission


def cancel(request_id: UUID) -> None:
    """Give a request up: at once if it waits, by asking its handler if it runs. Raises NotPossible when it is final."""
    give_up(request_id, Status.CANCELLED)


def give_up(request_id: UUID, status: Status) -> None:
    """End a request that has not begun, as cancelled or expired; one that a worker has is asked to stop."""
    with with_patience():
        ended = end(END_SCHEDULED, status, id=request_id)
    request = Request.objects.select_related("queue").defer("payload", "result").get(id=request_id)
    if ended:
        event_log.intervened(status.value, request.queue, request)
        transaction.on_commit(partial(finished, request.queue_id))
        return
    with locked(request.queue_id) as queue:
        request.refresh_from_db(fields=["status", "seq", "attempt", "finished_at"])
        if request.finished_at is not None:
            raise NotPossible(f"The request is {request.status} already.")
        if request.seq is not None and request.seq <= _claimed_to(queue):
            if status == Status.CANCELLED:
                Request.objects.filter(id=request_id).update(cancel_asked_at=Now())
                permits.let_go(queue.pk, request.seq)
                event_log.intervened("cancel asked", queue, request)
            return
        _end_ahead(queue, status, request.seq, request.seq)
        go_on(queue)
        event_log.intervened(status.value, queue, request)


def retry(request_id: UUID, *, session_id: UUID | None = None, trace: str = "") -> Accepted | None:
    """Try again what failed: the head of a blocked queue once more; what is final as a new request at the tail.

    Returns the new request, None for a blocked head. Raises NotPossible, and what accepting a request raises.
    """
    with locked(Request.objects.values_list("queue_id", flat=True).get(id=request_id)) as queue:
        request = Request.objects.get(id=request_id)
        if _blocks(queue, request):
            Request.objects.filter(id=request_id).update(max_attempts=request.attempt + 1, error=None)
            _wake(queue)
            event_log.intervened("retried", queue, request)
            return None
    if request.finished_at is None or request.status == Status.SUCCEEDED:
        raise NotPossible(
            f"This request is {request.status_now}."
            " Only failed, cancelled, expired or blocking requests can be retried."
        )
    try:
        kind = kinds.find(request.kind, request.version)
    except UnknownKind:
        raise NotPossible(f"There is no handler for {request.kind} version {request.version} any more.") from None
    payload = Request.objects.values_list(Cast("payload", TextField()), flat=True).get(id=request_id)
    again = Submission(kind, payload, retry_of=request.id)
    (accepted,) = accept(queue.user_id, [again], session_id=session_id, trace=trace)
    work_waits()
    return accepted


def skip(request_id: UUID) -> None:
    """Give up the head of a blocked queue, as failed; the next one runs. Raises NotPossible."""
    with locked(Request.objects.values_list("queue_id", flat=True).get(id=request_id)) as queue:
        request = Request.objects.get(id=request_id)
        if not _blocks(queue, request):
            raise NotPossible(f"The request is {request.status_now} and does not block its queue.")
        _end_ahead(queue, Status.FAILED, request.seq, request.seq)
        go_on(queue)
        event_log.intervened("skipped", queue, request)


def skip_head(queue_id: int) -> None:
    """Give up the head of a blocked queue. Raises NotPossible."""
    head = Request.objects.filter(queue=queue_id, seq=F("queue__done_seq") + 1).only("id").first()
    if head is None:
        raise NotPossible("Nothing is in the queue.")
    skip(head.id)


@transaction.atomic
def retry_once(request_id: UUID) -> None:
    """Try again as `retry` does, unless somebody has done so already. Raises what `retry` does."""
    queue_id = Request.objects.values_list("queue_id", flat=True).get(id=request_id)
    UserQueue.objects.select_for_update(no_key=True).get(id=queue_id)  # or two at once would see no other
    if Request.objects.filter(retry_of=request_id).exists():
        raise NotPossible("It was tried again already.")
    retry(request_id)


def pause(queue_id: int, operator: str = "") -> None:
    """Start no further request; the one that runs ends. Accepting goes on.

    `operator` says who does it, and why; empty: its owner does. An operator's pause takes the place of its owner's.
    """
    with locked(queue_id) as queue:
        if queue.paused and (queue.operator_paused or not operator):
            return  # whoever paused it first did
        queue.paused, queue.operator_paused = True, bool(operator)
        queue.paused_at, queue.paused_by = queue.now, operator[:500] or "its owner"
        event_log.intervened("paused", queue)


def resume(queue_id: int, *, operator: bool = False) -> None:
    """Go on where it stopped. Raises NotPossible when an operator paused it, and none resumes it."""
    with locked(queue_id) as queue:
        if queue.paused and queue.operator_paused and not operator:
            raise NotPossible("An operator paused your queue; only an operator can resume it.")
        if not queue.paused:
            return
        queue.paused, queue.operator_paused, queue.paused_at, queue.paused_by = False, False, None, ""
        if queue.state == QueueState.READY:
            _wake(queue)  # its token found it paused and is gone
        event_log.intervened("resumed", queue)


def limit(queue_id: int, most: int | None) -> None:
    """Let so many requests be in it; None: as many as the setting says. What is in it stays."""
    UserQueue.objects.filter(id=queue_id).update(waiting_limit=most)


def republish(queue_id: int) -> int:
    """Have all that waits brought to RabbitMQ again; what is there twice is passed over. Returns how many requests.

    Raises NotPossible while a worker has the queue: it finds out itself what is missing.
    """
    with locked(queue_id) as queue:
        if queue.state == QueueState.DRAINING:
            raise NotPossible("A worker has the queue; what RabbitMQ has lost it publishes again itself.")
        queue.published_seq = queue.done_seq
        if queue.state == QueueState.READY:
            queue.state, queue.idle_since = QueueState.IDLE, queue.now  # publishing wakes it, with a token
        event_log.intervened("republished", queue, requests=queue.depth)
        return int(queue.depth)


@transaction.atomic
def purge(queue_id: int) -> int:
    """Cancel all that waits, scheduled requests too; the one that runs goes on. Returns how many."""
    # Scheduled ones first: entering the line locks them before the queue, too.
    with with_patience():
        count = len(end(END_ALL_SCHEDULED, Status.CANCELLED, queue=queue_id))
    with locked(queue_id) as queue:
        count += _end_ahead(queue, Status.CANCELLED, _claimed_to(queue) + 1, queue.last_seq)
        go_on(queue)
        event_log.intervened("purged", queue, requests=count)
    return count


def _claimed_to(queue: UserQueue) -> int:
    """Up to this sequence number a worker may be at work."""
    return queue.done_seq + queue.claimed if queue.state == QueueState.DRAINING else queue.done_seq


def _blocks(queue: UserQueue, request: Request) -> bool:
    return queue.state == QueueState.BLOCKED and request.seq == queue.done_seq + 1


def _end_ahead(queue: UserQueue, status: Status, first: int | None, last: int | None) -> int:
    """End those from `first` to `last` in line, which no worker has; how many. done_seq does not move: they are counted
    as given up.
    """
    count = len(end(END_IN_LINE, status, queue=queue.pk, first=first, last=last))
    queue.given_up_ahead += count
    return count


def go_on(queue: Any) -> None:
    """Move done_seq past what is final at the head, where no worker has the queue, and wake it if the head is new."""
    if queue.state == QueueState.DRAINING:
        return  # its worker passes over them
    waiting = queue.requests.filter(seq__gt=queue.done_seq, finished_at=None).order_by("seq")
    head = waiting.values_list("seq", flat=True).first()
    done = queue.last_seq if head is None else head - 1
    if done == queue.done_seq:
        return
    queue.given_up_ahead = max(0, queue.given_up_ahead - (done - queue.done_seq))  # all that is passed was given up
    permits.drop(queue.pk, done)
    queue.done_seq, queue.published_seq, queue.moved_at = done, max(done, queue.published_seq), queue.now
    if queue.published_seq == done:
        queue.state, queue.wake_at, queue.idle_since = QueueState.IDLE, None, queue.now
    elif queue.state in (QueueState.WAITING, QueueState.BLOCKED):
        _wake(queue)


def _wake(queue: Any) -> None:
    """Have the dispatcher send a token at once."""
    queue.state, queue.wake_at = QueueState.WAITING, queue.now
