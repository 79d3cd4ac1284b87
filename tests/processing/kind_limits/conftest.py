"""Limited kinds whose handlers count how many run at once, and leases that ask for permits."""

import threading
import time
from collections import deque
from collections.abc import Iterator
from typing import Any

import pytest

from processing import handlers
from processing.handlers import HandlerRequest
from queues.lifecycle.lease import Lease
from queues.lifecycle.permits import take
from queues.limits import deployment
from queues.models import UserQueue
from tests.processing import kinds as test_kinds
from tests.processing.crew import (
    Hand,
    new_user,
    queue_of,
    submit,
)

TWO, FEW, FREE = "test.two", "test.few", "test.script"


class Counted:
    """What the limited handlers note: how many run, the most that ever did, who began and when."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.running = self.most = 0
        self.began: list[tuple[Any, int, float]] = []
        self.go_on = threading.Event()
        self.seconds = 0.0
        self.fails: deque[bool] = deque()

    def __call__(self, request: HandlerRequest, payload: Any) -> int:
        with self.lock:
            self.running += 1
            self.most = max(self.most, self.running)
            self.began.append((request.user_id, request.sequence, time.monotonic()))
        try:
            assert self.go_on.wait(20)
            time.sleep(self.seconds)
            if self.fails and self.fails.popleft():
                raise RuntimeError("as asked for")
        finally:
            with self.lock:
                self.running -= 1
        return 1


@pytest.fixture
def counted(transactional_db: None) -> Iterator[Counted]:
    counted = Counted()

    def run(request: HandlerRequest, payload: Any) -> int:
        return counted(request, payload)

    with test_kinds.kept():
        handlers.handler(TWO, max_concurrency=2, backoff=0.02, backoff_cap=0.1)(run)
        handlers.handler(FEW, rate="3/s")(run)
        deployment.declare()
        yield counted
        counted.go_on.set()


@pytest.fixture(autouse=True)
def _no_sweeps(hand: Hand, monkeypatch: pytest.MonkeyPatch) -> None:
    """The leases of a test's own have no living worker."""
    monkeypatch.setattr(hand.dispatcher, "sweep", lambda: None)


def leased(hand: Hand, kind: str) -> Lease:
    """A queue whose head is of that kind, in the hands of a worker of the test's own."""
    user = new_user()
    submit(user, None, kind=kind)
    hand.dispatch()
    lease = Lease.take(queue_of(user).id, 1)
    assert lease is not None
    assert [work.limited for work in lease.came_along] == [True]
    return lease


def asks(lease: Lease, kind: str = TWO, seq: int = 1) -> bool:
    return take(lease.queue_id, lease.fence, seq, kind) is None


def held(hand: Hand, count: int = 1, kind: str = TWO, **fields: Any) -> Any:
    """A user whose head is held back because the kind is paused."""
    deployment.pause(kind, "a test")
    user = new_user()
    submit(user, *range(count), kind=kind, **fields)
    hand.dispatch()
    hand.work()
    assert queue_of(user).held_back
    return user


def lease_user(lease: Lease) -> Any:
    return UserQueue.objects.get(id=lease.queue_id).user
