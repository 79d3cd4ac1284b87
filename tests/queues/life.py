"""What may happen to a queue, in any order, and what must be true of its figures after each step."""

import random
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from django.db import OperationalError
from django.db.models import F
from django.db.models.functions import Now

from processing.worker.outcomes import Ending
from processing.worker.recorder import Recording
from queues.exceptions import NotPossible, QueueFull
from queues.lifecycle import control
from queues.lifecycle import lease as leases
from queues.lifecycle.lease import Lease
from queues.lifecycle.recovery import recover
from queues.models import Request, UserQueue
from queues.operations import integrity
from queues.representation.rows import count_given_up_between
from queues.states import AttemptOutcome, QueueState, Status
from queues.values import Outcome
from tests.processing.crew import new_user, submit


class Life:
    """A user's queue to which everything happens, in an order that a seed chooses. One worker, who may die."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.user = new_user()
        submit(self.user, 0, kind="test.patient")
        self.queue_id = self.row().pk
        self.recording: Recording | None = None
        UserQueue.objects.filter(id=self.queue_id).update(waiting_limit=8)

    def row(self) -> UserQueue:
        return UserQueue.objects.get(user=self.user)

    def one(self, *statuses: str) -> Any:
        found = Request.objects.filter(queue=self.queue_id, status__in=statuses).order_by("seq")
        return self.random.choice(list(found)).id if found else None

    def step(self) -> str:
        verbs: dict[Callable[[], Any], int] = {
            self.accept: 6, self.publish: 8, self.lease: 12, self.run: 24, self.cancel: 6, self.expire: 2,
            self.purge: 1, self.skip: 2, self.retry: 2, self.die: 1, self.republish: 1, self.wake: 6,
        }  # fmt: skip
        (verb,) = self.random.choices([*verbs], [*verbs.values()])
        with suppress(NotPossible, QueueFull):
            verb()
        return verb.__name__

    def accept(self) -> None:
        submit(self.user, *range(self.random.randint(1, 3)), kind="test.patient")
        Request.objects.filter(queue=self.queue_id, attempt=0).update(
            on_failure=self.random.choice(["block", "continue"]), max_attempts=2
        )

    def publish(self) -> None:
        queue = UserQueue.objects.filter(id=self.queue_id, last_seq__gt=F("published_seq"))
        queue.filter(state="idle").update(state="ready", published_seq=F("last_seq"))
        queue.update(published_seq=F("last_seq"))

    def lease(self) -> None:
        lease = None if self.recording else Lease.take(self.queue_id, worker_id=1)
        if lease:
            self.recording = Recording(lease)
            if lease.careful:
                self.recording.record(QueueState.DRAINING, 1)
            self.left()

    def left(self) -> None:
        if self.recording and self.recording.lease.state != QueueState.DRAINING:
            self.recording = None

    def run(self) -> None:
        """A claim: some requests over, how each ended by chance; the answer to the record may be lost."""
        if self.recording is None:
            return
        lease = self.recording.lease
        then: Any = QueueState.DRAINING
        for work in lease.claimed(self.random.randint(0, self.row().claimed)):
            chance = self.random.random()
            if work.finished_at is not None:
                self.recording.over(Ending(None))
            elif chance < 0.8:
                self.recording.over(Ending(self.outcome(work.seq, Status.SUCCEEDED, work.attempt + 1)))
            elif chance < 0.9:
                self.recording.over(Ending(Outcome(work.seq, Status.CANCELLED, work.attempt, finished_at=lease.since)))
            else:
                then = self.random.choice([QueueState.WAITING, QueueState.BLOCKED])
                self.recording.over(Ending(self.outcome(work.seq, Status.RETRYING, work.attempt + 1), then))
                break
        lost = self.random.random() < 0.2
        if lost:
            self.lose_the_answer()
        delay = 60 if then == QueueState.WAITING else None
        self.recording.record(then, 0 if then != QueueState.DRAINING else self.random.randint(1, 5), delay)
        self.left()

    def outcome(self, seq: int, status: Status, attempt: int) -> Outcome:
        how = AttemptOutcome.FAILED if status == Status.RETRYING else AttemptOutcome.SUCCEEDED
        (now,) = UserQueue.objects.filter(id=self.queue_id).values_list(Now(), flat=True)
        return Outcome(seq, status, attempt, how, "1", None, now, now)

    @staticmethod
    def lose_the_answer() -> None:
        record = leases.record_together

        def committed_and_lost(records: Any) -> Any:
            leases.record_together = record
            before = [(one.lease, one.lease.done_seq) for one in records]
            record(records)
            for lease, done in before:
                lease.done_seq, lease.state = done, QueueState.DRAINING
            raise OperationalError("the connection broke")

        leases.record_together = committed_and_lost  # type: ignore[assignment]

    def cancel(self) -> None:
        if request := self.one("queued", "retrying"):
            control.cancel(request)

    def expire(self) -> None:
        if request := self.one("queued"):
            control.give_up(request, Status.EXPIRED)

    def purge(self) -> None:
        control.purge(self.queue_id)

    def skip(self) -> None:
        control.skip_head(self.queue_id)

    def retry(self) -> None:
        head = Request.objects.filter(queue=self.queue_id, seq=self.row().done_seq + 1, finished_at=None).first()
        if head and head.blocks:
            control.retry(head.id)

    def die(self) -> None:
        if self.recording:
            recover(self.queue_id, self.recording.lease.fence)
            self.recording = None

    def republish(self) -> None:
        control.republish(self.queue_id)

    def wake(self) -> None:
        UserQueue.objects.filter(id=self.queue_id, state="waiting").update(state="ready", wake_at=None)

    def check(self, steps: list[str]) -> None:
        """The counters agree with the rows, and each place with who is ahead."""
        queue = self.row()
        assert [wrong for _, found in integrity.compare(100, everywhere=True) for wrong in found] == [], steps
        unfinished = list(Request.objects.filter(queue=queue, finished_at=None).order_by("seq"))
        assert queue.depth == len(unfinished), steps
        assert [one.position for one in unfinished] == list(range(len(unfinished))), steps
        again = list(Request.objects.filter(queue=queue, finished_at=None).order_by("-seq"))
        count_given_up_between(queue, again)
        assert [one.position for one in reversed(again)] == list(range(len(unfinished))), steps
