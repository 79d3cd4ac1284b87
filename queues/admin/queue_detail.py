"""A queue's page for operators: its state in words, what runs, what waits in order, its pace, its last ones."""

from dataclasses import dataclass
from typing import Any

from django.db.models import QuerySet

from queues.in_line import eta_of_all
from queues.models import Request, UserQueue
from queues.operations.selectors import throughput, with_oldest
from queues.states import QueueState

A_PAGE = 100
HISTORY = 20

STATE_MEANS = {
    QueueState.IDLE: "At rest: nothing waits.",
    QueueState.READY: "Work waits and a drain token is under way. If it stays so for more than some seconds, all worker"
    " threads are busy, or none lives.",
    QueueState.DRAINING: "A worker is at it.",
    QueueState.WAITING: "Its head failed and is tried again later; nothing overtakes it.",
    QueueState.BLOCKED: "The first request failed. Its kind blocks the queue until you retry, cancel or skip it.",
}
TO_PUBLISH = (
    "Requests were accepted that RabbitMQ does not have yet. If it stays so for more than some seconds, no dispatcher"
    " lives."
)


@dataclass(frozen=True, slots=True)
class Page:
    queue: Any
    reasons: list[str]
    runs: list[Request]
    waiting: list[Request]
    following: int | None  # the sequence number behind which the next page begins
    first: bool
    finished_per_minute: float
    eta_seconds: float | None
    history: list[Request]
    blocked_by: Request | None = None


def page_of(queue_id: str, after: str) -> Page | None:
    """That queue's page, its waiting requests from behind that sequence number on; None: there is no such queue."""
    number = int(queue_id) if queue_id.isascii() and queue_id.isdigit() and len(queue_id) < 19 else 0
    queue = with_oldest(UserQueue.objects.filter(id=number)).first()
    if queue is None:
        return None
    behind = int(after) if after.isascii() and after.isdigit() and len(after) < 19 else 0
    head = _requests(queue).filter(seq=queue.done_seq + 1, finished_at=None).first()
    runs = [head] if head is not None and queue.state == QueueState.DRAINING else []
    begin = max(behind, queue.done_seq + len(runs))
    waiting = list(_requests(queue).filter(seq__gt=begin, finished_at=None).order_by("seq")[: A_PAGE + 1])
    newest = list(_requests(queue).filter(seq__lte=queue.done_seq).order_by("-seq")[:HISTORY])
    return Page(
        queue,
        list(_reasons(queue, head)),
        runs,
        waiting[:A_PAGE],
        waiting[A_PAGE - 1].seq if len(waiting) > A_PAGE else None,
        not behind,
        throughput([queue])[queue.id],
        eta_of_all(queue.depth, queue.avg_service_seconds, queue.stands),
        newest,
        head if queue.state == QueueState.BLOCKED else None,
    )


def _requests(queue: UserQueue) -> QuerySet[Request]:
    return Request.objects.filter(queue=queue).select_related("queue").defer("payload", "result")


def _reasons(queue: Any, head: Request | None) -> list[str]:
    """Why it stands as it stands, in sentences."""
    reasons = []
    if queue.paused:
        since = f" since {queue.paused_at:%Y-%m-%d %H:%M:%S}" if queue.paused_at else ""
        by = f" by {queue.paused_by}" if queue.paused_by else ""
        who = "an operator resumes it: its owner cannot" if queue.operator_paused else "it is resumed"
        reasons.append(f"Paused{since}{by}. Nothing further starts until {who}; accepting goes on.")
    if queue.state == QueueState.IDLE and queue.depth:
        reasons.append(TO_PUBLISH)
    elif not queue.held_back:
        reasons.append(STATE_MEANS[QueueState(queue.state)])
    if queue.state == QueueState.DRAINING and queue.lease_until:
        since = queue.claimed_at or queue.state_since
        reasons.append(f"Since {since:%H:%M:%S}; unless it is renewed, its lease ends at {queue.lease_until:%H:%M:%S}.")
    if queue.held_back:
        reasons.append("Its head waits for its kind, which is paused, or has as many as may run or begin: see Kinds.")
    elif queue.state == QueueState.WAITING and queue.wake_at:
        reasons.append(f"The next attempt is due at {queue.wake_at:%Y-%m-%d %H:%M:%S}.")
    if head is not None and head.attempt:
        reasons.append(f"Failed attempts of its head: {head.attempt} of {head.max_attempts}.")
    if queue.depth >= queue.limit:
        reasons.append("It is full: more requests are refused with 429.")
    return reasons
