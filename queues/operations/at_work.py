"""What each worker process runs now, read from the leases."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from queues.sql.figures import LEASES_HELD

MOST = 200  # leases that are shown, the longest held first


@dataclass(frozen=True, slots=True)
class RunningQueue:
    """A queue that a worker is at, and the head of it; `seconds` since that was claimed."""

    queue_id: int
    user: str
    request_id: UUID | None
    kind: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Worker:
    """A worker process, by the number that its leases name."""

    worker_id: int
    runs: list[RunningQueue]


def workers() -> list[Worker]:
    """The worker processes that hold a lease, each with what it runs, the longest first."""
    found: dict[int, list[RunningQueue]] = {}
    for row in LEASES_HELD.rows(most=MOST):
        found.setdefault(row.worker_id or 0, []).append(_run(row))
    return [Worker(worker_id, runs) for worker_id, runs in found.items()]


def _run(row: Any) -> RunningQueue:
    return RunningQueue(row.queue_id, row.username, row.id, row.kind or "-", max(0.0, row.seconds))
