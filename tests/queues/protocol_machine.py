"""The model of the protocol (docs/architecture.md), walked over the real rows with the real statements.

Hypothesis chooses what happens next: a user sends something, one of two dispatchers or workers takes one step, the
sweeper comes by, somebody crashes, a lease runs out under a live worker, the broker loses everything. Throughout:

  S1  done_seq moves from n to n+1 only, recorded by the holder of the newest fence
  S2  two workers never hold a lease at once that has not run out
  L   however it stands, it can be finished without faults: no wake-up is ever lost

and the constraints of the database hold.
"""

from contextlib import suppress
from dataclasses import dataclass
from typing import Any, ClassVar

from django.db.models.functions import Now
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
)

from processing.broker.pointers import Pointer
from queues.exceptions import FencedOut, NotPossible
from queues.lifecycle import control, outbox
from queues.lifecycle.lease import Lease
from queues.lifecycle.outbox import PublishBatch, Shard
from queues.lifecycle.recovery import recover
from queues.models import Request, UserQueue
from queues.states import FINAL, AttemptOutcome, QueueState, Status
from queues.values import Outcome
from tests.processing.crew import new_user, submit
from tests.queues.protocol_brokers import Memory, Rabbit

ALL = Shard(0, 1)


@dataclass
class Dispatcher:
    """Where one dispatcher stands: what it read, whether that is published, whether it owes a token."""

    batch: PublishBatch | None = None
    published: bool = False
    owes_token: bool = False


@dataclass
class Worker:
    """Where one worker stands. A token that it holds is lost with it, or goes back to the broker."""

    token: bool = False
    lease: Lease | None = None
    received: Pointer | None = None
    recorded: bool = False
    found_empty: bool = False
    alive: bool = True  # its lease has not run out


class Protocol(RuleBasedStateMachine):
    broker_class: ClassVar[type[Memory] | type[Rabbit]] = Memory
    sweeper = True
    rechecks = True

    def __init__(self) -> None:
        super().__init__()
        self.user = new_user()
        submit(self.user, None, kind="test.patient")
        self.queue_id = self.row().id
        self.broker = self.broker_class(self.queue_id)
        self.tokens = 0
        self.dispatchers = [Dispatcher(), Dispatcher()]
        self.workers = [Worker(), Worker()]
        self.done = 0

    def row(self) -> UserQueue:
        return UserQueue.objects.get(user=self.user)

    # The user

    @precondition(lambda self: self.row().last_seq < 6)
    @rule(count=st.integers(1, 2))
    def accept(self, count: int) -> None:
        submit(self.user, *[None] * count, kind="test.patient")

    # Dispatchers

    @rule(n=st.integers(0, 1))
    def dispatcher_steps(self, n: int) -> None:
        d = self.dispatchers[n]
        if d.owes_token:
            self.tokens += 1
            self.dispatchers[n] = Dispatcher()
        elif d.batch is None:
            for batch in outbox.unpublished(ALL, self.queue_id - 1, 1):
                d.batch = batch
        elif not d.published:
            self.broker.publish(Pointer(d.batch.before + 1, d.batch.target))
            d.published = True
        else:
            woken, _ = outbox.mark_published([d.batch])
            self.dispatchers[n] = Dispatcher(owes_token=bool(woken))

    # Workers

    @rule(n=st.integers(0, 1))
    def worker_steps(self, n: int) -> None:
        w = self.workers[n]
        if w.lease is None:
            self._take(w, n)
        elif w.recorded:
            w.recorded = False
            if w.received is not None and w.received.last <= w.lease.done_seq:
                self.broker.ack(n)
                w.received = None
        elif w.received is not None:
            self._run(w, n, w.lease, w.received)
        elif w.found_empty:
            self._leave(w, n, w.lease)
        else:
            w.received = self.broker.get(n)
            w.found_empty = w.received is None

    def _take(self, w: Worker, n: int) -> None:
        if not w.token and self.tokens:
            self.tokens -= 1
            w.token = True
        elif w.token:
            others = [o for o in self.workers if o is not w and o.lease and o.alive]
            w.lease = Lease.take(self.queue_id, worker_id=n + 1)
            w.token, w.alive = w.lease is not None, True
            if w.lease:
                assert not [o for o in others if o.lease and o.lease.fence == w.lease.fence - 1], "S2"

    def _run(self, w: Worker, n: int, lease: Lease, received: Pointer) -> None:
        seq = lease.done_seq + 1
        if not received.first <= seq <= received.last <= lease.published_seq:
            self.broker.ack(n)  # a duplicate, or too early
            w.received = None
            return
        before = self.row()
        outcome = Outcome(seq, Status.SUCCEEDED, 1, AttemptOutcome.SUCCEEDED, "1", None, *self._times())
        try:
            lease.record(1, [outcome], QueueState.DRAINING, 1)
        except FencedOut:
            self._end(n)
            return
        assert (before.fence, before.state) == (lease.fence, "draining"), "S1: recorded without the newest fence"
        assert (before.done_seq, seq) == (self.done, self.done + 1), "S1: recorded out of order"
        self.done += 1
        w.recorded = True
        if lease.state == QueueState.IDLE:
            if received.last <= lease.done_seq:
                self.broker.ack(n)
            self._end(n)

    def _leave(self, w: Worker, n: int, lease: Lease) -> None:
        """RabbitMQ has nothing: idle, republish, or look again."""
        w.found_empty = False
        try:
            if not self.rechecks:
                UserQueue.objects.filter(id=self.queue_id, fence=lease.fence).update(state="idle", state_since=Now())
                self._end(n)
            elif lease.published_seq > lease.done_seq and lease.republish():
                self._end(n)
            else:
                lease.record(0, [], QueueState.DRAINING, 1)
                if lease.state == QueueState.IDLE:
                    self._end(n)
        except FencedOut:
            self._end(n)

    def _end(self, n: int) -> None:
        self.broker.disconnect(n)
        self.workers[n] = Worker()

    def _times(self) -> tuple[Any, Any]:
        (now,) = UserQueue.objects.filter(id=self.queue_id).values_list(Now(), flat=True)
        return now, now

    # The sweeper

    @precondition(lambda self: self.sweeper)
    @rule()
    def sweep(self) -> None:
        row = self.row()
        holders = [w for w in self.workers if w.lease and w.lease.fence == row.fence and w.alive]
        if row.state == "draining" and not holders:
            self.tokens += recover(self.queue_id, row.fence)
        UserQueue.objects.filter(state="waiting").update(wake_at=Now())
        self.tokens += len(outbox.wake(ALL, 10))
        if not self.tokens:
            self.tokens += len(outbox.stale_ready(ALL, -1, 10))

    # An operator

    @rule()
    def all_is_published_again(self) -> None:
        with suppress(NotPossible):  # a worker has the queue
            control.republish(self.queue_id)

    # Faults

    @rule(n=st.integers(0, 1))
    def dispatcher_crashes(self, n: int) -> None:
        self.dispatchers[n] = Dispatcher()

    @rule(n=st.integers(0, 1))
    def worker_crashes(self, n: int) -> None:
        self.tokens += self.workers[n].token
        self._end(n)

    @rule(n=st.integers(0, 1))
    def lease_runs_out_under_a_live_worker(self, n: int) -> None:
        self.workers[n].alive = False

    @rule()
    def broker_loses_everything(self) -> None:
        self.broker.lose()
        self.tokens = 0
        for n, w in enumerate(self.workers):
            if w.lease is None:
                self.workers[n] = Worker()

    # What holds

    @invariant()
    def promises_are_kept(self) -> None:
        row = self.row()
        newest = [w for w in self.workers if w.lease and w.alive and w.lease.fence == row.fence]
        assert len(newest) <= 1, "S2"
        assert row.done_seq == self.done, "S1: done_seq moved by nobody's record"
        final = Request.objects.filter(queue=row, status__in=FINAL).order_by("seq").values_list("seq", flat=True)
        assert list(final) == list(range(1, self.done + 1)), "S1: what is done is exactly what is final"

    def teardown(self) -> None:
        """L: without another fault, everything is finished."""
        for _ in range(150):
            row = self.row()
            if row.done_seq == row.last_seq and row.state == "idle":
                break
            for n in (0, 1):
                self.dispatcher_steps(n)
                self.worker_steps(n)
            if self.sweeper:
                self.sweep()
            self.promises_are_kept()
        else:
            raise AssertionError(f"L: stuck with done {row.done_seq} of {row.last_seq}, {row.state}")
        self.broker.close()
