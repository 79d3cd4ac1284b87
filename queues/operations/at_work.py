"""What each worker process runs now, read from the leases."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from queues.sql.statement import Statement

MOST = 200  # leases that are shown, the longest held first

LEASES = Statement("""
    SELECT q.holder, q.id AS queue_id, u.username, r.id, r.kind, q.claimed,
           extract(epoch FROM now() - coalesce(q.claimed_at, q.state_since))::float AS seconds
    FROM (SELECT * FROM queues_userqueue WHERE active AND state = 'draining'
          ORDER BY coalesce(claimed_at, state_since) LIMIT %(most)s) q
    JOIN accounts_user u ON u.id = q.user_id
    LEFT JOIN queues_request r ON r.queue_id = q.id AND r.seq = q.done_seq + 1
    ORDER BY q.holder, seconds DESC
""")


@dataclass(frozen=True, slots=True)
class Run:
    """A queue that a worker is at, and the head of it; `seconds` since that was claimed."""

    queue_id: int
    user: str
    request_id: UUID | None
    kind: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Worker:
    """A worker process, by the number that its leases name."""

    holder: int
    runs: list[Run]


def look() -> list[Worker]:
    """The worker processes that hold a lease, each with what it runs, the longest first."""
    found: dict[int, list[Run]] = {}
    for row in LEASES.rows(most=MOST):
        found.setdefault(row.holder or 0, []).append(_run(row))
    return [Worker(holder, runs) for holder, runs in found.items()]


def _run(row: Any) -> Run:
    return Run(row.queue_id, row.username, row.id, row.kind or "-", max(0.0, row.seconds))
