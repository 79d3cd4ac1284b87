"""Retention: deletes requests that were final long ago, oldest first, in batches. Interrupted, it is begun again."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.db import transaction

from queues import cache
from queues.sql import Statement
from queues.states import Status

# Along the primary key, which is ordered by time. One ahead of its queue's head is final, but not passed over yet.
OLD = Statement("""
    SELECT r.id FROM queues_request r JOIN queues_userqueue q ON q.id = r.queue_id
    WHERE r.id > %(after)s AND r.id < %(bound)s AND r.status = ANY(%(statuses)s) AND r.finished_at < %(before)s
      AND (r.seq IS NULL OR r.seq <= q.done_seq)
    ORDER BY r.id LIMIT %(count)s
""")

FORGET = Statement("""
    WITH attempt AS (DELETE FROM queues_attempt WHERE request_id = ANY(%(ids)s)),
         retry AS (UPDATE queues_request SET retry_of_id = NULL
                   WHERE retry_of_id = ANY(%(ids)s) AND NOT id = ANY(%(ids)s))
    DELETE FROM queues_request WHERE id = ANY(%(ids)s) RETURNING id
""")

EARLIEST = UUID(int=0)


@dataclass(frozen=True, slots=True)
class Retention:
    """What is to go: final with one of these statuses before that moment."""

    before: datetime
    statuses: Sequence[Status]


def old(retention: Retention, count: int) -> Iterator[list[UUID]]:
    """Batches of the ids of what is to go, oldest first."""
    after = EARLIEST
    bound = UUID(int=int(retention.before.timestamp() * 1000) << 80)  # accepted later cannot have ended before
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


def prune(retention: Retention, count: int) -> Iterator[int]:
    """Delete what is to go, `count` at a time, each time in a transaction; yields how many went."""
    for ids in old(retention, count):
        with transaction.atomic():
            yield remove(ids)


def remove(ids: Sequence[UUID]) -> int:
    """Delete these requests with their attempts, and what Redis keeps of them; how many."""
    cache.forget(ids)
    return len(FORGET.rows(ids=ids))
