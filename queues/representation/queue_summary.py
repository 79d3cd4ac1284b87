"""How a user's queue is doing, in one statement that looks at no more than its head and its last hundred outcomes."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from queues.exceptions import SessionOver
from queues.in_line import eta_of_all, limit_of
from queues.sql.definitions import finished_per_minute
from queues.sql.reads import QUEUE_SUMMARY
from queues.states import QueueState


@dataclass(frozen=True, slots=True)
class LimitedBy:
    """Why the head waits for its kind: it is `paused`, or has as many as may run (`max_concurrency`), or begin (`rate`)
    until then. When it is this user's turn others decide, too.
    """

    kind: str
    reason: str
    until: datetime | None


@dataclass(frozen=True, slots=True)
class Summary:
    """A queue as the API shows it."""

    state: str
    paused: bool
    depth: int
    limit: int
    oldest_waiting_at: datetime | None
    running: UUID | None
    finished_per_minute: float
    eta_seconds: float | None
    blocked_by: UUID | None
    limited_by: LimitedBy | None


def summary(user_id: UUID, session_id: UUID) -> Summary:
    """The queue of a user; that of one who never asked for anything is idle and empty. Raises SessionOver."""
    row = QUEUE_SUMMARY.row(user=user_id, session=session_id)
    if row is None:
        raise SessionOver
    if row.state is None:
        return Summary(QueueState.IDLE.value, False, 0, limit_of(None), None, None, 0, 0, None, None)
    return Summary(
        state=row.state,
        paused=row.paused,
        depth=row.depth,
        limit=limit_of(row.waiting_limit),
        oldest_waiting_at=row.oldest_waiting_at,
        running=row.head if row.state == QueueState.DRAINING else None,
        finished_per_minute=finished_per_minute(row.outcomes, row.seconds),
        eta_seconds=eta_of_all(row.depth, row.avg_service_seconds, row.stands),
        blocked_by=row.head if row.state == QueueState.BLOCKED else None,
        limited_by=None if row.held_kind is None else LimitedBy(row.held_kind, row.held_reason, row.held_until),
    )
