"""What a test is told about an attempt, and the request that a handler is given in one."""

from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import orjson

from processing.handlers import HandlerRequest
from processing.worker.outcomes import Ending
from queues.states import QueueState, Status
from queues.values import Submission


@dataclass(frozen=True)
class Ran:
    """One attempt, or the end of a request that was given up before its turn.

    `status` is what the request has become: `retrying` if it is to be tried again, after `delay` seconds; `blocked`
    says that its kind blocks the queue instead. `outcome` is the attempt's, as the API and the admin name it. `error`
    has `type` and `message`, `exception` is what the handler raised, None where `drain` ran it.
    """

    id: UUID
    kind: str
    attempt: int
    status: str
    outcome: str | None
    result: Any = None
    error: dict[str, Any] | None = None
    delay: float | None = None
    blocked: bool = False
    progress: list[tuple[int, int, str]] = field(default_factory=list)
    submitted: list[Submission] = field(default_factory=list)
    exception: BaseException | None = field(default=None, repr=False)

    @classmethod
    def of(cls, request: HandlerRequest, ending: Ending, exception: BaseException | None = None) -> "Ran":
        """What came of an attempt, as its ending says. A ending without an outcome: it was final already."""
        said = ending.outcome
        status = Status.CANCELLED if said is None else said.status
        return cls(
            id=request.id,
            kind=request.kind,
            attempt=request.attempt,
            status=str(status),
            outcome=None if said is None or said.outcome is None else str(said.outcome),
            result=None if said is None or said.result is None else orjson.loads(said.result),
            error=None if said is None else said.error,
            delay=ending.delay,
            blocked=ending.then == QueueState.BLOCKED,
            progress=request.progress_calls if isinstance(request, TestedRequest) else [],
            submitted=request.next_requests if status == Status.SUCCEEDED else [],
            exception=exception,
        )


@dataclass
class TestedRequest(HandlerRequest):
    """Keeps its progress for the test, instead of telling Redis."""

    __test__ = False  # for pytest, which collects classes of such names

    progress_calls: list[tuple[int, int, str]] = field(default_factory=list, repr=False)

    def progress(self, current: int, total: int, note: str = "") -> None:
        """Keep it; every call, unlike in a worker."""
        self.progress_calls.append((current, total, note))
