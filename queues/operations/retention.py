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

from queues.lifecycle.removal import remove
from queues.operations.selectors import first_id
from queues.sql.locks import wait_at_most
from queues.sql.maintenance import (
    DELETE_OLD_ACTIONS,
    DELETE_OLD_BULK_ACTIONS,
    OLD_REQUESTS,
    RETENTION_PAGE,
)
from queues.sql.statement import left_out
from queues.states import FINAL, Status

log = structlog.get_logger()


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
    bound = first_id(retention.before)  # what was accepted later cannot have ended before
    while True:
        rows = OLD_REQUESTS.rows(
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
        values = {"after": self._after, "bound": first_id(before), "before": before, "count": count}
        page: list[UUID] = []
        ids: list[UUID] = []
        try:
            with transaction.atomic():
                wait_at_most(LOCK_SECONDS)
                rows = RETENTION_PAGE.rows(**values, statuses=[status.value for status in FINAL])
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
    """Delete up to `count` of the commands, and of the bulk actions, kept for ADMIN_LOG_RETENTION_DAYS; how many."""
    if not settings.ENV.admin_log_retention_days:
        return 0
    before = timezone.now() - timedelta(days=settings.ENV.admin_log_retention_days)
    return sum(len(old.rows(before=before, count=count)) for old in (DELETE_OLD_ACTIONS, DELETE_OLD_BULK_ACTIONS))
