"""The values that pass between the parts: frozen, each made in one place."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, NamedTuple
from uuid import UUID

import uuid_utils.compat

from queues.in_line import eta
from queues.kinds import Kind
from queues.states import AttemptOutcome, QueueState, Status

Next = Literal[QueueState.DRAINING, QueueState.READY, QueueState.WAITING, QueueState.BLOCKED]


@dataclass(frozen=True, slots=True)
class Submission:
    """One request as asked for. `payload` is JSON text that fits the kind's schema; a `not_before` lies ahead."""

    kind: Kind
    payload: str
    not_before: datetime | None = None
    expires_at: datetime | None = None
    retry_of: UUID | None = None
    id: UUID = field(default_factory=uuid_utils.compat.uuid7)


@dataclass(frozen=True, slots=True)
class Accepted:
    """What the database made of a submission; `seq` is None while it is scheduled."""

    submission: Submission
    queue_id: int
    seq: int | None
    created_at: datetime
    done_seq: int
    given_up_ahead: int
    avg_service_seconds: float | None
    stands: bool

    @property
    def position(self) -> int | None:
        """How many requests are ahead of it; None while it is scheduled."""
        return None if self.seq is None else max(0, self.seq - self.done_seq - 1 - self.given_up_ahead)

    @property
    def eta_seconds(self) -> float | None:
        """Seconds until its turn at the queue's present pace; None when unknown."""
        return eta(self.position, self.avg_service_seconds, self.stands)


@dataclass(frozen=True, slots=True)
class SubmissionCall:
    """One submission of somebody, in a session if there is one, by the call that `trace` names."""

    user_id: UUID
    session_id: UUID | None
    submission: Submission
    trace: str
    traceparent: str | None = None


class Work(NamedTuple):
    """One claimed request, as it was when it was claimed. `payload` is JSON text, `attempt` how many attempts ended.

    `ready_at` (when it could begin) and `began_at` (when its first attempt did) are in seconds since the epoch.
    `limited`: it needs a permit of its kind.
    """

    id: UUID
    seq: int
    kind: str
    version: int
    payload: str
    attempt: int
    max_attempts: int
    on_failure: str
    finished_at: datetime | None
    expired: bool
    cancel_asked: bool
    trace: str
    traceparent: str | None
    ready_at: float
    began_at: float | None
    limited: bool = False


class Outcome(NamedTuple):
    """What came of one request: a final status, or `retrying`. `result` is JSON text; times are the database's.

    `work` is what was claimed; nothing of it is recorded. `traceback` is for operators, `frames` of it for the log.
    """

    seq: int
    status: Status
    attempt: int
    outcome: AttemptOutcome | None = None
    result: str | None = None
    error: dict[str, Any] | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    work: Work | None = None
    traceback: str | None = None
    frames: str | None = None
