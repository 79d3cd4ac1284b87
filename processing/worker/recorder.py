"""What is over in a turn and not yet written down: recorded together, soon, with the lease's fence."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

import structlog
from django.conf import settings
from django.db import InterfaceError, OperationalError, connection, transaction
from psycopg.errors import LockNotAvailable

from processing.worker.outcomes import Verdict
from processing.worker.watchdog import RENEW_SECONDS
from queues import event_log
from queues.exceptions import FencedOut
from queues.lifecycle.lease import Lease
from queues.metrics import count_recorded
from queues.notify.changes import changed, finished
from queues.signals import send_finished
from queues.states import QueueState
from queues.values import Next, Outcome

log = structlog.get_logger()


class Recording:
    """The writing side of one turn. The worker's thread and the watch use it, each holding `lock` meanwhile."""

    def __init__(self, lease: Lease) -> None:
        self.lease = lease
        self.lock = threading.RLock()
        self.passed = 0  # requests that are over since the last record ..
        self.outcomes: list[Outcome] = []  # .. what came of them ..
        self.closed = False  # nothing is written any more: the watch ended the turn
        self._oldest = 0.0  # .. and when the first of them was over
        self._unsure = False  # a record's answer was lost: it may have been committed
        self._followed: Lease | None = None
        self._renewed = time.monotonic()
        self._thread_id = threading.get_ident()

    def over(self, verdict: Verdict) -> None:
        """One more request has had its turn. It is recorded soon, with others."""
        with self.lock:
            if verdict.then == QueueState.DRAINING:
                self._oldest = self._oldest if self.passed else time.monotonic()
                self.passed += 1
            if verdict.outcome is not None:
                self.outcomes.append(verdict.outcome)

    def is_due(self) -> bool:
        """Whether the oldest unrecorded outcome has waited for as long as one may."""
        return self.passed > 0 and time.monotonic() - self._oldest >= settings.ENV.record_after_ms / 1000

    def record(
        self,
        then: Next,
        claim: int = 0,
        delay: float | None = None,
        follow: int | None = None,
        began: datetime | None = None,
    ) -> Lease | None:
        """Write down what is over; if PostgreSQL is away, as soon as it is back. Raises FencedOut.

        How the queue goes on, which one is to follow and what runs meanwhile is told as to `Lease.record`.
        """
        patience = time.monotonic() + settings.ENV.lease_seconds
        with self.lock:
            done, outcomes = self.lease.done_seq, self.outcomes
            while not self._recorded(then, claim, delay, follow, began, patience):
                follow = None
                time.sleep(0.1)
            if not connection.in_atomic_block:
                self._committed(done, outcomes)
            self.passed, self.outcomes = 0, []
            self._renewed = time.monotonic()
            followed, self._followed = self._followed, None
            return followed

    def _recorded(
        self, then: Next, claim: int, delay: float | None, follow: int | None, began: datetime | None, patience: float
    ) -> bool:
        """Try to record once. False: try again; `_unsure` whether an earlier try was committed before it failed."""
        if self.closed:
            raise FencedOut
        try:
            if self._unsure:
                moved = self.lease.catch_up()
                self.outcomes = [o for o in self.outcomes if o.seq > self.lease.done_seq]
                self.passed = max(0, self.passed - moved)
                self._unsure = False
            if self.lease.state == QueueState.DRAINING:
                self._followed = self.lease.record(self.passed, self.outcomes, then, claim, delay, follow, began)
        except (OperationalError, InterfaceError) as error:
            if isinstance(error.__cause__, LockNotAvailable) and not connection.in_atomic_block:
                # Nothing was written, and nobody else is concerned: this thread tries again for as long as its lease.
                if threading.get_ident() != self._thread_id or time.monotonic() > patience:
                    raise
                return False
            if connection.in_atomic_block or threading.get_ident() != self._thread_id or time.monotonic() > patience:
                self._unsure = not connection.in_atomic_block
                raise
            log.warning("recording waits for PostgreSQL", queue=self.lease.queue_id, error=str(error).strip())
            self._unsure = True
            connection.close()
            return False
        return True

    @contextmanager
    def atomically(self) -> Iterator[None]:
        """What the block writes to PostgreSQL and the record of what it says is over are one commit, or nothing is."""
        before, outcomes = self.lease.done_seq, self.outcomes
        try:
            with transaction.atomic():
                yield
                outcomes = self.outcomes
                self.record(QueueState.DRAINING, 1)
        except BaseException:
            # Rolled back, unless the answer to the commit was lost: the next record finds out.
            self.passed, self.outcomes = 0, []
            self.lease.done_seq, self.lease.state, self._unsure = before, QueueState.DRAINING, True
            raise
        self._committed(before, outcomes)

    def _committed(self, done: int, outcomes: list[Outcome]) -> None:
        """Count and log what was recorded, and tell those who watch the queue; the head may have moved since `done`."""
        count_recorded(outcomes)
        event_log.recorded(self.lease, outcomes)
        send_finished(self.lease, outcomes)
        if self.lease.done_seq > done:
            finished(self.lease.queue_id, self.lease.done_seq)
        elif outcomes:
            changed(self.lease.queue_id)

    def is_to_renew(self) -> bool:
        """Whether it is time to renew the lease; then it is done now."""
        now = time.monotonic()
        if now - self._renewed < RENEW_SECONDS:
            return False
        self._renewed = now
        return True

    def renew(self, seq: int) -> bool:
        """Keep the lease if it is time; whether the request at `seq` is to be cancelled. Raises FencedOut."""
        return self.is_to_renew() and self.lease.renew(seq)
