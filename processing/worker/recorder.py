"""What is over and not yet written down: of many turns together, soon, each with its own lease's fence."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

import structlog
from django.conf import settings
from django.db import DatabaseError, InterfaceError, OperationalError, connection, transaction

from processing.worker.outcomes import Verdict
from processing.worker.watchdog import RENEW_SECONDS
from queues import event_log
from queues.exceptions import FencedOut
from queues.lifecycle import lease as leases
from queues.lifecycle.lease import Lease, Record
from queues.metrics import count_recorded
from queues.notify.changes import changed, finished
from queues.signals import send_finished
from queues.sql.statement import left_out
from queues.states import QueueState
from queues.values import Next, Outcome

log = structlog.get_logger()

AGAIN_SECONDS = 0.1  # after a record that failed, or was left out


class LeftOut(OperationalError):
    """Somebody has locked a row that the record needs. Nothing was written; PostgreSQL is well."""


class Recording:
    """What is over in one turn. The worker's thread and the watch use it, each holding the run's lock meanwhile."""

    def __init__(self, lease: Lease) -> None:
        self.lease = lease
        self.passed = 0  # requests that are over since the last record ..
        self.outcomes: list[Outcome] = []  # .. and what came of them
        self.closed = False  # nothing is written any more: the watch ended the turn
        self.oldest = 0.0  # when the first of them was over
        self._unsure = False  # a record's answer was lost: it may have been committed
        self._renewed = time.monotonic()

    def over(self, verdict: Verdict) -> None:
        """One more request has had its turn. It is recorded soon, with others."""
        if verdict.then == QueueState.DRAINING:
            self.oldest = self.oldest if self.passed else time.monotonic()
            self.passed += 1
        if verdict.outcome is not None:
            self.outcomes.append(verdict.outcome)

    @property
    def is_due(self) -> bool:
        """Whether the oldest unrecorded outcome has waited for as long as one may."""
        return self.passed > 0 and time.monotonic() - self.oldest >= settings.ENV.record_after_ms / 1000

    def record(
        self,
        then: Next,
        claim: int = 0,
        delay: float | None = None,
        *,
        wait: bool = True,
        began: datetime | None = None,
    ) -> None:
        """Write down what is over of this turn alone; `wait`: if PostgreSQL is away, as soon as it is back.

        Inside a transaction it is part of that. Raises FencedOut, and django.db.Error: nothing was written.
        """
        if connection.in_atomic_block:
            self.lease.record(self.passed, self.outcomes, then, claim, delay, began)
            return
        patience = time.monotonic() + settings.ENV.lease_seconds if wait else 0.0
        while True:
            refused = record([Wanted(self, then, claim, delay, began)], patience)
            if refused.fenced_out:
                raise FencedOut
            for _, error in refused.faulty:
                raise error
            if not refused.left_out:
                return
            if time.monotonic() > patience:
                raise LeftOut(f"a row of queue {self.lease.queue_id} is locked")
            time.sleep(AGAIN_SECONDS)

    def unsure(self) -> None:
        """The answer to a record was lost."""
        self._unsure = True

    def make_sure(self) -> None:
        """Find out whether the record was committed whose answer was lost. Raises FencedOut, and django.db.Error."""
        if self.closed:
            raise FencedOut
        if self._unsure:
            moved = self.lease.catch_up()
            self.outcomes = [one for one in self.outcomes if one.seq > self.lease.done_seq]
            self.passed = max(0, self.passed - moved)
            self._unsure = False

    def committed(self, done: int, outcomes: Sequence[Outcome]) -> None:
        """Count and log what was recorded, and tell those who watch the queue; the head may have moved since `done`."""
        self.passed, self.outcomes = 0, []
        self._renewed = time.monotonic()
        count_recorded(outcomes)
        event_log.recorded(self.lease, outcomes)
        send_finished(self.lease, outcomes)
        if self.lease.done_seq > done:
            finished(self.lease.queue_id, self.lease.done_seq)
        elif outcomes:
            changed(self.lease.queue_id)

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
        self.committed(before, outcomes)

    def is_to_renew(self) -> bool:
        """Whether it is time to renew the lease; then it is done now."""
        now = time.monotonic()
        if now - self._renewed < RENEW_SECONDS:
            return False
        self._renewed = now
        return True

    def renew(self, seq: int) -> None:
        """Keep the lease if it is time. Raises FencedOut."""
        if self.is_to_renew():
            self.lease.renew(seq)


@dataclass(eq=False, slots=True)
class Wanted:
    """A turn's record that is to be written: what is over in it, and how its queue goes on."""

    recording: Recording
    then: Next
    claim: int = 0
    delay: float | None = None
    began: datetime | None = None
    done: int = field(init=False)
    outcomes: Sequence[Outcome] = field(init=False)
    settled: bool = False  # written, or refused

    def __post_init__(self) -> None:
        self.done, self.outcomes = self.recording.lease.done_seq, self.recording.outcomes

    def record(self) -> Record:
        mine = self.recording
        return Record(mine.lease, mine.passed, mine.outcomes, self.then, self.claim, self.delay, self.began)

    def committed(self) -> None:
        self.settled = True
        self.recording.committed(self.done, self.outcomes)

    def believe(self) -> None:
        """An atomic handler's commit may have succeeded though its answer was lost: it has not failed, then."""
        last = self.outcomes[-1] if self.outcomes else None
        if last and last.seq <= self.recording.lease.done_seq and self.then in (QueueState.WAITING, QueueState.BLOCKED):
            self.then, self.delay = QueueState.READY, None
            self.outcomes = self.outcomes[:-1]

    def refused(self) -> "Wanted":
        self.settled = True
        return self


class Refused(NamedTuple):
    """What was not written: somebody else has the queue; a row is locked; PostgreSQL refuses what is in it."""

    fenced_out: list[Wanted]
    left_out: list[Wanted]
    faulty: list[tuple[Wanted, DatabaseError]]


def record(wanted: Sequence[Wanted], patience: float) -> Refused:
    """Write down what is over in these turns, in one commit; none of them fails another.

    While PostgreSQL is away it is tried again, until `patience` on the monotonic clock; then raises django.db.Error.
    """
    refused = Refused([], [], [])
    while True:
        try:
            _record(_sure(wanted, refused), refused)
            return refused
        except (OperationalError, InterfaceError) as error:
            for one in wanted:
                if not one.settled:
                    one.recording.unsure()
            if time.monotonic() > patience:
                raise
            log.warning("recording waits for PostgreSQL", queues=len(wanted), error=str(error).strip())
            connection.close()
            time.sleep(AGAIN_SECONDS)


def _sure(wanted: Sequence[Wanted], refused: Refused) -> list[Wanted]:
    """Those that are still to be written, once it is known what became of the last try."""
    left = []
    for one in wanted:
        if one.settled:
            continue
        try:
            one.recording.make_sure()
        except FencedOut:
            refused.fenced_out.append(one.refused())
            continue
        one.believe()
        if one.recording.lease.state == QueueState.DRAINING:
            left.append(one)
        else:
            one.committed()
    return left


def _record(wanted: Sequence[Wanted], refused: Refused) -> None:
    """One statement for all; one for each, where a request's row is locked, or PostgreSQL refuses what one says."""
    if not wanted:
        return
    try:
        found = leases.record_together([one.record() for one in wanted])
    except DatabaseError as error:
        if isinstance(error, OperationalError | InterfaceError) and not left_out(error):
            raise
        if len(wanted) > 1:
            for one in wanted:
                _record([one], refused)
        elif left_out(error):
            refused.left_out.append(wanted[0].refused())
        else:
            refused.faulty.append((wanted[0].refused(), error))
        return
    by_lease = {record.lease: refused.fenced_out for record in found.fenced_out}
    by_lease |= {record.lease: refused.left_out for record in found.left_out}
    for one in wanted:
        if (refusals := by_lease.get(one.recording.lease)) is None:
            one.committed()
        else:
            refusals.append(one.refused())
