"""A user's queue, run to its end in this process: with the real PostgreSQL, without RabbitMQ or a worker."""

import threading
import time
from collections import deque
from datetime import datetime
from types import SimpleNamespace
from typing import Any
from uuid import UUID

from django.db import connection

from accounts.models import User
from processing import handlers
from processing.handlers import HandlerRequest, NoHandler
from processing.testing.attempts import Ran, TestedRequest
from processing.testing.limit import limited
from processing.worker.attempt import RECORDED, Attempt, request_fields
from processing.worker.outcomes import Ending, raised, without_running
from processing.worker.recorder import Recording
from queues.lifecycle.lease import Lease
from queues.lifecycle.outbox import Shard, enter_line, mark_published, unpublished, wake
from queues.models import UserQueue
from queues.states import QueueState
from queues.values import Work

NOBODY = 0  # the holder of these leases: no worker has this number
SCHEDULED_AT_ONCE = 1000
LOCKED_SECONDS = 10.0


def drain(user: User | UUID, *, attempts: int = 1000) -> list[Ran]:
    """Run what waits in the user's queue, in order, until nothing can run; each attempt, in order.

    Retries are due at once. What a handler submits runs as well. It ends early where the queue is paused or blocked.
    Requests scheduled for later stay where they are, and limits of kinds are not looked at: both need a dispatcher.
    Outcomes are recorded as a worker records them, so no transaction may be open around it:
    `@pytest.mark.django_db(transaction=True)`, or Django's TransactionTestCase.

    Raises RuntimeError in a transaction, after so many `attempts`, and where somebody keeps the queue locked; FencedOut
    when a worker runs the same queue.
    """
    if connection.in_atomic_block:
        raise RuntimeError("drain() commits as a worker does: mark the test with django_db(transaction=True).")
    user_id = user.id if isinstance(user, User) else user
    queue_id = UserQueue.objects.filter(user=user_id).values_list("id", flat=True).first()
    ran: list[Ran] = []
    while queue_id is not None:
        _make_ready(queue_id)
        lease = Lease.take(queue_id, NOBODY)
        if lease is None:
            break
        turn = Turn(lease)
        while lease.state == QueueState.DRAINING:
            if len(ran) >= attempts:
                lease.record(0, [], QueueState.READY)
                raise RuntimeError(f"{attempts} attempts and no end. drain(user, attempts=..) allows more.")
            ran.append(turn.run_next())
    return ran


def _make_ready(queue_id: int) -> None:
    """What the dispatcher does for it."""
    alone = Shard(queue_id, 2**62)  # the one queue whose id leaves that
    enter_line(alone, SCHEDULED_AT_ONCE)
    until = time.monotonic() + LOCKED_SECONDS
    while batches := unpublished(alone, queue_id - 1, 1):
        _, locked = mark_published(batches)
        if locked:
            if time.monotonic() > until:
                raise RuntimeError(f"somebody has had the queue's row locked for {LOCKED_SECONDS:g} s")
            time.sleep(0.01)
    wake(alone, 1)


class Noted(Recording):
    """Remembers what it was told last."""

    ending = Ending(None)

    def over(self, ending: Ending) -> None:
        self.ending = ending
        super().over(ending)


class Turn:
    """One lease of a queue: what an Attempt needs of it, one request at a time."""

    def __init__(self, lease: Lease) -> None:
        self.lease = lease
        self._noted = Noted(lease)
        self.recording: Recording = self._noted
        self.claim: deque[Work] = deque()
        self.handling = 0.0
        self.run: Any = SimpleNamespace(running=None, lock=threading.RLock())

    def began_at(self, work: Work) -> datetime:
        """Each is the head when it begins."""
        since: datetime = self.lease.since
        return since

    def run_next(self) -> Ran:
        """Run the head and record what came of it. Raises FencedOut."""
        (work,) = self.lease.claimed(1)
        request = TestedRequest(**request_fields(self.lease, work))
        ending = without_running(work, self.lease.now) or self._attempt(work, request)
        if ending is not RECORDED:
            self.recording.over(ending)
            delay = None if ending.delay is None else 0.0  # due at once
            self.recording.record(ending.then, 1, delay)
        return Ran.of(request, self._noted.ending)

    def _attempt(self, work: Work, request: TestedRequest) -> Ending:
        try:
            kind, function = handlers.find(work.kind, work.version)
        except NoHandler as missing:
            return raised(work, None, False, missing, self.lease.since, self.lease.now())

        def within_its_time(request: HandlerRequest, payload: Any) -> Any:
            with limited(kind.time_limit):
                return function(request, payload)

        attempt = Attempt(self, work, kind, within_its_time)
        attempt.request = request
        return attempt.run()
