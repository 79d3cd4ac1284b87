"""Which kinds and versions something waits for: what a release that drops one would leave without a handler."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from queues import kinds
from queues.exceptions import UnknownKind
from queues.sql.statement import Statement

# Through the partial indexes of active queues and of scheduled requests: what is finished is not read.
WAITING = Statement("""
    SELECT kind, version, count(*) AS waiting, count(DISTINCT queue_id) AS users, min(created_at) AS oldest FROM (
        SELECT r.kind, r.version, r.queue_id, r.created_at
        FROM (SELECT id, done_seq FROM queues_userqueue WHERE active
              UNION SELECT id, done_seq FROM queues_userqueue WHERE unpublished) q
        JOIN queues_request r ON r.queue_id = q.id AND r.seq > q.done_seq AND r.finished_at IS NULL
        UNION ALL
        SELECT kind, version, queue_id, created_at FROM queues_request WHERE due_at IS NOT NULL
    ) v GROUP BY kind, version ORDER BY kind, version
""")


@dataclass(frozen=True, slots=True)
class Use:
    """So many of `what` (requests, schedules) ask for this kind. `version` None: for the newest."""

    what: str
    kind: str
    version: int | None
    count: int
    users: int
    oldest: datetime | None

    @property
    def has_handler(self) -> bool:
        """Whether this code can run them."""
        try:
            kinds.find(self.kind, self.version)
        except UnknownKind:
            return False
        return True


def requests() -> list[Use]:
    """Requests without a final status."""
    return [Use("requests", row.kind, row.version, row.waiting, row.users, row.oldest) for row in WAITING.rows()]


looks: list[Callable[[], list[Use]]] = [requests]  # an app that keeps kinds elsewhere adds its own


def all_uses() -> list[Use]:
    """All that asks for kinds, whoever keeps it."""
    return [use for look in looks for use in look()]
