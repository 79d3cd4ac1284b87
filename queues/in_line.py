"""Where a request stands in its user's queue, and a queue's own figures: what follows from the rows, however they were
read.
"""

from datetime import datetime
from typing import Any

from django.conf import settings
from django.utils.functional import cached_property

from queues.states import GIVEN_UP, QueueState, Status


def eta(ahead: int | None, each: float | None, stands: bool) -> float | None:
    """Seconds until so many requests are done at the queue's present pace of `each`; None while nobody can know."""
    return None if ahead is None or each is None or stands else round(ahead * each, 3)


def eta_of_all(depth: int, each: float | None, stands: bool) -> float | None:
    """Seconds until all that waits or runs is done; None while nobody can know."""
    return eta(depth, each, stands) if depth else 0.0


def limit_of(own: int | None) -> int:
    """How many requests may be in a queue: its own limit, or the setting."""
    return settings.ENV.waiting_limit if own is None else own


class InLine:
    """What `Request` and `RequestRow` have in common: the columns that are read here, and what follows from them."""

    queue: Any
    seq: int | None
    status: str
    attempt: int
    started_at: datetime | None
    finished_at: datetime | None

    @property
    def running(self) -> bool:
        """Whether a worker has it in hand: it is the head of a queue that is being drained."""
        return self._head_while(QueueState.DRAINING)

    @property
    def blocks(self) -> bool:
        """Whether its queue stands until it is tried again, skipped or cancelled."""
        return self._head_while(QueueState.BLOCKED)

    def _head_while(self, state: QueueState) -> bool:
        queue = self.queue
        return self.finished_at is None and queue.state == state and self.seq == queue.done_seq + 1

    @property
    def status_now(self) -> Status:
        """Its status as the API tells it."""
        if self.running:
            return Status.RUNNING
        return Status.BLOCKED if self.blocks else Status(self.status)

    @property
    def attempt_now(self) -> int:
        """The attempt that runs, or ran last; 0 before the first."""
        return self.attempt + 1 if self.running else self.attempt

    @cached_property
    def given_up_between(self) -> int:
        """How many ahead of it, in line, are final already; a list counts them for all of its rows at once."""
        queue = self.queue
        if not queue.given_up_ahead or self.finished_at is not None or self.seq is None:
            return 0
        ahead = queue.requests.filter(seq__gt=queue.done_seq, seq__lt=self.seq, given_up__in=GIVEN_UP)
        return int(ahead.count())

    @property
    def position(self) -> int | None:
        """How many requests that are not final are ahead of it; None when it is final or not yet in the queue."""
        if self.finished_at is not None or self.seq is None:
            return None
        behind: int = self.seq - self.queue.done_seq - 1 - self.given_up_between
        return max(0, behind)

    @property
    def eta_seconds(self) -> float | None:
        """Seconds until its turn at the queue's present pace; None when unknown."""
        return eta(self.position, self.queue.avg_service_seconds, self.queue.stands)

    @property
    def started(self) -> datetime | None:
        """When its first attempt began, the one under way included."""
        return self.started_at or (self.queue.claimed_at if self.running else None)
