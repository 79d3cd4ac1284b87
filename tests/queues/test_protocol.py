"""The model of the protocol (docs/architecture.md), walked over the real rows with the real statements.

Hypothesis chooses what happens next: a user sends something, one of two dispatchers or workers takes one step, the
sweeper comes by, somebody crashes, a lease runs out under a live worker, the broker loses everything. Throughout:

  S1  done_seq moves from n to n+1 only, recorded by the holder of the newest fence
  S2  two workers never hold a lease at once that has not run out
  L   however it stands, it can be finished without faults: no wake-up is ever lost

and the constraints of the database hold. The machines at the end are broken on purpose: they must be found out.
"""

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, ClassVar
from uuid import UUID

import pytest
from django.db import IntegrityError, connection
from django.db.models.functions import Now
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from processing.broker.fetcher import Fetcher, Source
from processing.broker.rabbitmq import Pointer, Publisher, queue_name
from queues.exceptions import FencedOut, NotPossible
from queues.lifecycle import control, outbox
from queues.lifecycle import lease as lease_module
from queues.lifecycle.lease import Lease
from queues.lifecycle.outbox import PublishBatch, Shard
from queues.lifecycle.recovery import recover
from queues.models import Request, UserQueue
from queues.sql import protocol
from queues.sql.statement import Statement
from queues.states import FINAL, AttemptOutcome, QueueState, Status
from queues.values import Outcome
from tests.processing import kinds
from tests.processing.crew import new_user, submit

ALL = Shard(0, 1)


class Memory:
    """A broker in memory: a list that workers take from, and what they took and have not acked."""

    def __init__(self, queue_id: int) -> None:
        self.messages: deque[int] = deque()
        self.taken: dict[int, list[int]] = {0: [], 1: []}

    def publish(self, pointer: Pointer) -> None:
        self.messages.append(pointer.seq)

    def get(self, worker: int) -> int | None:
        if not self.messages:
            return None
        self.taken[worker].append(self.messages.popleft())
        return self.taken[worker][-1]

    def ack(self, worker: int) -> None:
        self.taken[worker].clear()

    def disconnect(self, worker: int) -> None:
        self.messages.extendleft(reversed(self.taken[worker]))
        self.taken[worker].clear()

    def lose(self) -> None:
        self.messages.clear()
        self.taken = {0: [], 1: []}

    def close(self) -> None: ...


class Rabbit:
    """The real one."""

    def __init__(self, queue_id: int) -> None:
        self.queue_id = queue_id
        self.publisher = Publisher()
        self.workers = Fetcher(), Fetcher()
        self.sources: list[Source | None] = [None, None]
        self.tags = [0, 0]
        self.publisher.publish([(queue_name(queue_id), [])])

    def publish(self, pointer: Pointer) -> None:
        self.publisher.publish([(queue_name(self.queue_id), [pointer])])

    def get(self, worker: int) -> int | None:
        source = self.sources[worker]
        if source is None or source.error:
            (source,) = self.workers[worker].open_sources([(queue_name(self.queue_id), 1)])
            self.sources[worker] = source
        source.ask_again()
        while (delivery := source.take()) is None and not source.empty:
            self.workers[worker].wait([source], 1)
        if delivery is None:
            return None
        self.tags[worker] = delivery.tag
        return delivery.seq

    def ack(self, worker: int) -> None:
        source = self.sources[worker]
        if source is not None:
            source.done(self.tags[worker])
            source.settle()
            self.workers[worker].settle()

    def disconnect(self, worker: int) -> None:
        self.workers[worker].close()
        self.sources[worker] = None

    def lose(self) -> None:
        for worker in (0, 1):
            self.disconnect(worker)
        self.publisher.delete([queue_name(self.queue_id)])
        self.publisher.publish([(queue_name(self.queue_id), [])])

    def close(self) -> None:
        for channel in (self.publisher, *self.workers):
            channel.close()


@dataclass
class Dispatcher:
    """Where one dispatcher stands: what it read, what of it is still to be published, whether it owes a token."""

    batch: PublishBatch | None = None
    rest: list[tuple[int, UUID]] = field(default_factory=list)
    owes_token: bool = False


@dataclass
class Worker:
    """Where one worker stands. A token that it holds is lost with it, or goes back to the broker."""

    token: bool = False
    lease: Lease | None = None
    received: int | None = None
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
            for batch in outbox.unpublished(ALL, self.queue_id - 1, 1, 3):
                d.batch, d.rest = batch, list(batch.requests)
        elif d.rest:
            seq, id_ = d.rest.pop(0)
            self.broker.publish(Pointer(seq, id_))
        else:
            woken = outbox.mark_published([d.batch])
            self.dispatchers[n] = Dispatcher(owes_token=bool(woken))

    # Workers

    @rule(n=st.integers(0, 1))
    def worker_steps(self, n: int) -> None:
        w = self.workers[n]
        if w.lease is None:
            self._take(w, n)
        elif w.recorded:
            self.broker.ack(n)
            w.recorded, w.received = False, None
        elif w.received is not None:
            self._run(w, n, w.lease)
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
            w.lease = Lease.take(self.queue_id, holder=n + 1)
            w.token, w.alive = w.lease is not None, True
            if w.lease:
                assert not [o for o in others if o.lease and o.lease.fence == w.lease.fence - 1], "S2"

    def _run(self, w: Worker, n: int, lease: Lease) -> None:
        if w.received != lease.done_seq + 1:
            self.broker.ack(n)  # a duplicate, or too early
            w.received = None
            return
        before = self.row()
        outcome = Outcome(w.received, Status.SUCCEEDED, 1, AttemptOutcome.SUCCEEDED, "1", None, *self._times())
        try:
            lease.record(1, [outcome], QueueState.DRAINING, 1)
        except FencedOut:
            self._end(n)
            return
        assert (before.fence, before.state) == (lease.fence, "draining"), "S1: recorded without the newest fence"
        assert (before.done_seq, w.received) == (self.done, self.done + 1), "S1: recorded out of order"
        self.done += 1
        w.recorded = True
        if lease.state == QueueState.IDLE:
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


class OverRabbitMQ(Protocol):
    broker_class = Rabbit


class WithoutSweeper(Protocol):
    sweeper = False


class WithoutRecheck(Protocol):
    rechecks = False


def walk(machine: type[Protocol], examples: int) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=50,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
            database=None,
        ),
    )


@pytest.fixture(autouse=True)
def _patient(transactional_db: None) -> Iterator[None]:
    with kinds.registered():
        yield


def test_the_code_keeps_what_the_model_promises() -> None:
    walk(Protocol, examples=30)


def test_the_code_keeps_it_over_rabbitmq() -> None:
    walk(OverRabbitMQ, examples=6)


def publish_and_wake(world: Protocol) -> None:
    """One dispatcher reads, publishes, marks and sends the token."""
    for _ in range(4):
        world.dispatcher_steps(0)
    assert world.tokens == 1


def test_without_the_sweeper_a_lost_token_is_a_lost_wake_up() -> None:
    for machine in (Protocol, WithoutSweeper):
        world = machine()
        publish_and_wake(world)
        world.broker_loses_everything()
        if machine.sweeper:
            world.teardown()
        else:
            with pytest.raises(AssertionError, match="L: stuck"):
                world.teardown()


def test_going_idle_without_a_second_look_is_refused_by_the_database() -> None:
    for machine in (Protocol, WithoutRecheck):
        world = machine()
        publish_and_wake(world)
        for _ in range(2):
            world.worker_steps(0)  # takes the token, leases
        world.broker_loses_everything()
        world.worker_steps(0)  # finds nothing
        if machine.rechecks:
            world.worker_steps(0)
            world.teardown()
        else:
            with pytest.raises(IntegrityError, match="idle_owes_nothing"):
                world.worker_steps(0)


@pytest.mark.parametrize("fenced", [True, False])
def test_without_the_fence_one_records_who_has_lost_the_lease(monkeypatch: pytest.MonkeyPatch, fenced: bool) -> None:
    if not fenced:
        guard = "fence = told.fence AND "
        assert protocol.RECORD.text.count(guard) == 2
        monkeypatch.setattr(lease_module, "RECORD", Statement(protocol.RECORD.text.replace(guard, "")))
    world = Protocol()
    publish_and_wake(world)
    for _ in range(3):
        world.worker_steps(0)  # takes the token, leases, gets its message
    world.lease_runs_out_under_a_live_worker(0)
    world.sweep()
    for _ in range(2):
        world.worker_steps(1)
    if fenced:
        world.worker_steps(0)
        assert world.done == 0, "it recorded nothing"
        world.teardown()
    else:
        with pytest.raises(AssertionError, match="without the newest fence"):
            world.worker_steps(0)


def test_the_database_refuses_what_the_protocol_never_does() -> None:
    user = new_user()
    submit(user, None, None, kind="test.patient")
    wrong: list[Callable[[], Any]] = [
        lambda: UserQueue.objects.filter(user=user).update(published_seq=3),
        lambda: UserQueue.objects.filter(user=user).update(done_seq=1),
        lambda: UserQueue.objects.filter(user=user).update(published_seq=1),
        lambda: UserQueue.objects.filter(user=user).update(state="waiting"),
        lambda: UserQueue.objects.filter(user=user).update(wake_at=Now()),
        lambda: Request.objects.filter(queue__user=user, seq=2).update(seq=1),
        lambda: Request.objects.filter(queue__user=user, seq=2).update(status="succeeded"),
        lambda: Request.objects.filter(queue__user=user, seq=2).update(finished_at=Now()),
        lambda: Request.objects.filter(queue__user=user, seq=2).update(status="running"),
        lambda: Request.objects.filter(queue__user=user, seq=2).update(status="scheduled"),
    ]
    for change in wrong:
        with pytest.raises(IntegrityError):
            change()
    connection.close()
