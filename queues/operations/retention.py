"""Retention: deletes requests that were final long ago, oldest first, in batches. Interrupted, it is begun again.

An operator's command deletes what it says; the dispatcher keeps what the settings say, a page of the table at a time.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

import structlog
from django.conf import settings
from django.db import IntegrityError, OperationalError, transaction
from django.utils import timezone

from queues.representation import response_cache
from queues.sql.statement import Statement, left_out, wait_at_most
from queues.states import FINAL, Status

log = structlog.get_logger()

# Along the primary key, which is ordered by time. One ahead of its queue's head is final, but not passed over yet.
OLD = Statement("""
    SELECT r.id FROM queues_request r JOIN queues_userqueue q ON q.id = r.queue_id
    WHERE r.id > %(after)s AND r.id < %(bound)s AND r.status = ANY(%(statuses)s) AND r.finished_at < %(before)s
      AND (r.seq IS NULL OR r.seq <= q.done_seq)
    ORDER BY r.id LIMIT %(count)s
""")

# The queue's row first, as everybody locks; one that is locked keeps its requests until the next time.
FORGET = Statement("""
    WITH queue AS MATERIALIZED (
        SELECT id FROM queues_userqueue
        WHERE id IN (SELECT queue_id FROM queues_request WHERE id = ANY(%(ids)s))
        ORDER BY id FOR NO KEY UPDATE SKIP LOCKED
    ), gone AS (
        DELETE FROM queues_request WHERE id = ANY(%(ids)s) AND queue_id IN (SELECT id FROM queue)
        RETURNING id, queue_id, bytes
    ), attempt AS (
        DELETE FROM queues_attempt WHERE request_id = ANY(%(ids)s) AND request_id IN (SELECT id FROM gone)
    ), retry AS (
        UPDATE queues_request SET retry_of_id = NULL
        WHERE retry_of_id = ANY(%(ids)s) AND NOT id = ANY(%(ids)s) AND retry_of_id IN (SELECT id FROM gone)
    ), freed AS (
        UPDATE queues_userqueue q SET bytes_stored = greatest(0, q.bytes_stored - n.bytes)
        FROM (SELECT queue_id, sum(bytes) AS bytes FROM gone GROUP BY queue_id) n WHERE q.id = n.queue_id
    )
    SELECT id FROM gone
""")

# The next requests in the order in which they were accepted, and which of them are to go: however many are not, no more
# than a page is read. What somebody has locked stays for another time.
PAGE = Statement("""
    WITH page AS MATERIALIZED (
        SELECT id FROM queues_request WHERE id > %(after)s AND id < %(bound)s ORDER BY id LIMIT %(count)s
    ), old AS (
        SELECT r.id FROM page JOIN queues_request r ON r.id = page.id JOIN queues_userqueue q ON q.id = r.queue_id
        WHERE r.status = ANY(%(statuses)s) AND r.finished_at < %(before)s AND (r.seq IS NULL OR r.seq <= q.done_seq)
        FOR UPDATE OF r SKIP LOCKED
    )
    SELECT page.id, old.id IS NOT NULL AS old FROM page LEFT JOIN old ON old.id = page.id ORDER BY page.id
""")

OLD_ACTIONS = Statement("""
    DELETE FROM queues_operatoraction WHERE id IN (
        SELECT id FROM queues_operatoraction WHERE at < %(before)s ORDER BY at LIMIT %(count)s FOR UPDATE SKIP LOCKED)
    RETURNING id
""")

LOCK_SECONDS = 0.1  # how long a deletion waits for a row that somebody else has

EARLIEST = UUID(int=0)


@dataclass(frozen=True, slots=True)
class Retention:
    """What is to go: final with one of these statuses before that moment."""

    before: datetime
    statuses: Sequence[Status]


def old(retention: Retention, count: int) -> Iterator[list[UUID]]:
    """Batches of the ids of what is to go, oldest first."""
    after = EARLIEST
    bound = _earliest_after(retention.before)
    while True:
        rows = OLD.rows(
            after=after,
            bound=bound,
            before=retention.before,
            statuses=[status.value for status in retention.statuses],
            count=count,
        )
        if not rows:
            return
        after = rows[-1].id
        yield [row.id for row in rows]


def _earliest_after(moment: datetime) -> UUID:
    """The smallest id that a request accepted then could have: one accepted later cannot have ended before."""
    return UUID(int=int(moment.timestamp() * 1000) << 80)


def prune(retention: Retention, count: int) -> Iterator[int]:
    """Delete what is to go, `count` at a time, each time in a transaction; yields how many went."""
    for ids in old(retention, count):
        with transaction.atomic():
            yield remove(ids)


def remove(ids: Sequence[UUID]) -> int:
    """Delete these requests with their attempts, and what Redis keeps of them; how many.

    Those of a queue that somebody else has locked stay.
    """
    response_cache.forget(ids)
    return len(FORGET.rows(ids=ids))


class Sweep:
    """Keeps REQUEST_RETENTION_DAYS: goes through the table from its oldest request on, a page at each step."""

    def __init__(self) -> None:
        self._after = EARLIEST

    def step(self, count: int) -> bool:
        """Read the next `count` requests and delete what is to go. Whether there are more; if not, it begins anew."""
        days = settings.ENV.request_retention_days
        if not days:
            return False
        before = timezone.now() - timedelta(days=days)
        values = {"after": self._after, "bound": _earliest_after(before), "before": before, "count": count}
        page: list[UUID] = []
        ids: list[UUID] = []
        try:
            with transaction.atomic():
                wait_at_most(LOCK_SECONDS)
                rows = PAGE.rows(**values, statuses=[status.value for status in FINAL])
                page, ids = [row.id for row in rows], [row.id for row in rows if row.old]
                if ids:
                    remove(ids)
        except (OperationalError, IntegrityError) as error:
            if not _of_one_row(error):
                raise
            for id_ in ids:
                _remove_alone(id_)
        more = len(page) == count
        self._after = page[-1] if more else EARLIEST
        return more


def _remove_alone(id_: UUID) -> None:
    """Delete one request. It stays for another time while something that belongs to it is locked, and for as long as
    a table of somebody else's refers to it.
    """
    try:
        with transaction.atomic():
            wait_at_most(LOCK_SECONDS)
            remove([id_])
    except (OperationalError, IntegrityError) as error:
        if not _of_one_row(error):
            raise
        log.warning("a request is not deleted yet", request=str(id_), error=str(error).strip().partition("\n")[0])


def _of_one_row(error: Exception) -> bool:
    return isinstance(error, IntegrityError) or left_out(error)


def prune_actions(count: int) -> int:
    """Delete up to `count` of the operators' actions that were kept for ADMIN_LOG_RETENTION_DAYS; how many."""
    if not settings.ENV.admin_log_retention_days:
        return 0
    before = timezone.now() - timedelta(days=settings.ENV.admin_log_retention_days)
    return len(OLD_ACTIONS.rows(before=before, count=count))
