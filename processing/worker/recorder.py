"""What is over and not yet written down: of many turns together, soon, each with its own lease's fence."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

import structlog
from django.conf import settings
from django.db import InterfaceError, OperationalError, connection, transaction

from processing.worker.outcomes import Ending, replace_refused
from queues import event_log
from queues.exceptions import FencedOut
from queues.lifecycle import lease as leases
from queues.lifecycle.group import Group
from queues.lifecycle.lease import Lease, Record, Recorded
from queues.metrics import count_recorded
from queues.notify.changes import changed, finished
from queues.signals import send_finished
from queues.sql.statement import left_out, took_too_long
from queues.states import QueueState
from queues.values import Next, Outcome

log = structlog.get_logger()

RENEW_SECONDS = 1.0
AGAIN_SECONDS = 0.1  # after a record that failed, or was left out


class LeftOut(OperationalError):
    """Somebody has locked a row that the record needs. Nothing was written; PostgreSQL is well."""


class Recording:
    """What is over in one turn. The worker's thread and the watch use it, each holding the run's lock meanwhile."""

    def __init__(self, lease: Lease, waits: Callable[[], AbstractContextManager[None]] = nullcontext) -> None:
        self.lease = lease
        self._waits = waits  # entered by the worker's thread where it may wait for the queue's row
        self.passed = 0  # requests that are over since the last record ..
        self.outcomes: list[Outcome] = []  # .. and what came of them
        self.at_work = 1  # of its requests, as PostgreSQL may believe, at most
        self.closed = False  # nothing is written any more: the watch ended the turn
        self.oldest = 0.0  # when the first of them was over
        self.was_left_out = False  # somebody has locked a row that its last record needed
        self.unsure = False  # a record's answer was lost: it may have been committed
        self.doubtful: Sequence[Outcome] = ()  # what an atomic handler's commit had whose answer was lost
        self._renewed = time.monotonic()

    def over(self, ending: Ending) -> None:
        """One more request has had its turn. It is recorded soon, with others."""
        if ending.then == QueueState.DRAINING:
            self.oldest = self.oldest if self.passed else time.monotonic()
            self.passed += 1
        if ending.outcome is not None:
            self.outcomes.append(ending.outcome)

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
        patience = time.monotonic() + settings.ENV.lease_seconds if wait else 0.0
        with self._waits() if wait else nullcontext():
            if connection.in_atomic_block:
                self.lease.record(self.passed, self.outcomes, then, claim, delay, began)
                return
            while (refused := record([Wanted(self, then, claim, delay, began)], patience)).left_out:
                if time.monotonic() > patience:
                    raise LeftOut(f"a row of queue {self.lease.queue_id} is locked")
                time.sleep(AGAIN_SECONDS)
        for _, error in refused.faulty:
            raise error
        if refused.fenced_out or (then == QueueState.DRAINING and self.lease.state == QueueState.BLOCKED):
            raise FencedOut  # blocked, if by what PostgreSQL refused

    def make_sure(self) -> None:
        """Find out whether the record was committed whose answer was lost. Raises FencedOut, and django.db.Error."""
        if self.closed:
            raise FencedOut
        if self.unsure:
            moved = self.lease.catch_up()
            self.outcomes = [one for one in self.outcomes if one.seq > self.lease.done_seq]
            self.passed = max(0, self.passed - moved)
            self.unsure = False

    def committed(self, done: int, outcomes: Sequence[Outcome], claim: int = 1) -> None:
        """Log what was recorded, and tell those who watch the queue; the head may have moved since `done`."""
        self.passed, self.outcomes = 0, []
        self.was_left_out, self.at_work = False, max(1, claim)
        self._renewed = time.monotonic()
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
            self.passed, self.outcomes = 0, []  # rolled back, or its answer was lost: the next record finds out
            self.lease.done_seq, self.lease.state, self.unsure = before, QueueState.DRAINING, True
            self.doubtful = outcomes
            raise
        count_recorded(outcomes)
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
    along: int = 0
    done: int = field(init=False)
    outcomes: Sequence[Outcome] = field(init=False)
    settled: bool = False  # written, or refused

    def __post_init__(self) -> None:
        self.done, self.outcomes = self.recording.lease.done_seq, self.recording.outcomes

    def record(self) -> Record:
        mine = self.recording
        mine.at_work = max(mine.at_work, self.claim)
        return Record(mine.lease, mine.passed, mine.outcomes, self.then, self.claim, self.delay, self.began, self.along)

    def committed(self) -> None:
        self.settled = True
        self.recording.committed(self.done, self.outcomes, self.claim)

    def believe(self) -> None:
        """An atomic handler's commit may have succeeded though its answer was lost: it has not failed, then."""
        doubtful, self.recording.doubtful = self.recording.doubtful, ()
        if doubtful and doubtful[-1].seq <= self.recording.lease.done_seq:
            self.outcomes = [*self.outcomes[:-1], *doubtful]
            if self.then in (QueueState.WAITING, QueueState.BLOCKED):
                self.then, self.delay = QueueState.READY, None

    def refused(self) -> "Wanted":
        self.settled = True
        return self

    def left_out(self) -> "Wanted":
        self.recording.was_left_out = True
        return self.refused()


def _record_each(records: Sequence[Record]) -> list[Recorded | None]:
    """None: it is to be recorded by itself. A lease that was lost may meet the one that its queue has now."""
    once = {record.lease.queue_id: record for record in records}
    found = leases.record_together(list(once.values()))
    return [found if once[record.lease.queue_id] is record else None for record in records]


_together: Group[Record, Recorded | None] = Group(_record_each)


class Refused(NamedTuple):
    """What was not written: somebody else has the queue; a row is locked; what is in it cannot be kept."""

    fenced_out: list[Wanted]
    left_out: list[Wanted]
    faulty: list[tuple[Wanted, Exception]]


def record(wanted: Sequence[Wanted], patience: float, *, shared: bool = False) -> Refused:
    """Write down what is over in these turns, in one commit; none of them fails another.

    `shared`: that commit may have what other threads of this process record at the same time, too. While PostgreSQL is
    away it is tried again, until `patience` on the monotonic clock; then raises django.db.Error. An outcome that
    cannot be kept becomes a failed attempt, but for those without patience: what it changes is the run's business.
    """
    replace = patience > 0
    refused = Refused([], [], [])
    while True:
        try:
            sure = _sure(wanted, refused)
            for one in [one for one in sure if shared and one.recording.was_left_out]:
                sure.remove(one)  # it may be again, after a wait: others need not share it
                _record([one], refused, replace)
            _record(sure, refused, replace, shared=shared)
            return refused
        except (OperationalError, InterfaceError) as error:
            for one in wanted:
                if not one.settled:
                    one.recording.unsure = True
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
            _committed([one])
    return left


def _record(wanted: Sequence[Wanted], refused: Refused, replace: bool, *, shared: bool = False) -> None:
    """One statement for all; one for each, where a request's row is locked, or what one says cannot be kept."""
    if not wanted:
        return
    records = [one.record() for one in wanted]
    try:
        found = _together.ask(records) if shared else _record_each(records)
    except Exception as error:  # PostgreSQL's, or one that cannot even be told
        if isinstance(error, OperationalError | InterfaceError) and not left_out(error):
            raise
        if (len(wanted) > 1 or shared) and (replace or not took_too_long(error)):  # the watch has no more time
            for one in wanted:
                _record([one], refused, replace)
        elif left_out(error):
            refused.left_out.extend(one.left_out() for one in wanted)
        elif replace and _replace_refused(wanted[0]):
            _record(wanted, refused, False)
        else:
            refused.faulty.append((wanted[0].refused(), error))
        return
    written = []
    for one, record_, recorded in zip(wanted, records, found, strict=True):
        if recorded is None:
            _record([one], refused, replace)
        elif record_ in recorded.fenced_out:
            refused.fenced_out.append(one.refused())
        elif record_ in recorded.left_out:
            refused.left_out.append(one.left_out())
        else:
            one.recording.passed, one.recording.outcomes = 0, []  # before anything that may fail: its lease has moved
            written.append(one)
    _committed(written)


def _replace_refused(one: Wanted) -> bool:
    """Whether there was anything in it that cannot be kept; it is called a failed attempt instead."""
    mine = one.recording
    replaced = replace_refused(mine.lease, one.outcomes)
    if replaced is None:
        return False
    one.outcomes = mine.outcomes = replaced.outcomes
    if replaced.blocked_at:
        mine.passed = replaced.blocked_at - mine.lease.done_seq - 1
        one.then, one.claim, one.delay = QueueState.BLOCKED, 0, None
    return True


def _committed(written: Sequence[Wanted]) -> None:
    """Counted together: a look at each metric costs more than what is counted there."""
    count_recorded([outcome for one in written for outcome in one.outcomes])
    for one in written:
        one.committed()
