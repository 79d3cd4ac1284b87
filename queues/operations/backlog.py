"""How all queues stand, in three statements that read active queues alone: a million idle users cost them nothing."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from django.conf import settings

from queues.lifecycle.lease import WORKERS
from queues.limits import deployment
from queues.limits.deployment import KindAtWork
from queues.sql.figures import BY_STATE, CLUSTER_STATUS
from queues.states import QueueState

SILENT_SECONDS = 10.0  # a worker process that gave no sign for so long is not counted
STUCK_SECONDS = 10.0  # work that could begin has waited for so long, nothing began meanwhile, and nothing runs
STUCK_BUSY_SECONDS = 60.0  # the same while handlers run: slow ones may hold all threads for a while
CACHED_SECONDS = 2.0
CACHED_TIMES = 20  # a look that takes long is kept for so many times as long: looking costs at most a twentieth


@dataclass(frozen=True, slots=True)
class Group:
    """The queues of one state, paused or not, held back by a kind or not: how many, and of their requests without a
    final status how many, the most in one queue, the age of the oldest that waits (seconds; None: none waits), and how
    long ago the last one began (None: none did).
    """

    state: QueueState
    paused: bool
    queues: int
    depth: int
    deepest: int
    oldest_waiting: float | None
    held_back: bool = False
    last_began: float | None = None


@dataclass(frozen=True, slots=True)
class Backlog:
    """All queues at one moment. Idle ones are counted only where something accepted is still to be published.

    `lag` is how many seconds the dispatcher is behind with each of its tasks: publish, schedule, wake.
    `oldest_transaction` is the age in seconds of the oldest that keeps dead versions of rows from being pruned.
    """

    groups: list[Group]
    paused: int
    unpublished: int
    lag: dict[str, float]
    dispatchers: int
    workers: int
    oldest_transaction: float
    took: float
    kinds: Sequence[KindAtWork] = ()

    @property
    def depth(self) -> int:
        """Requests without a final status, those that run included."""
        return sum(group.depth for group in self.groups)

    @property
    def deepest(self) -> int:
        """Depth of the deepest queue."""
        return max((group.deepest for group in self.groups), default=0)

    def queues(self, state: QueueState) -> int:
        """How many queues are in that state."""
        return sum(group.queues for group in self.groups if group.state == state)

    def oldest_waiting(self, among: Callable[[Group], bool]) -> float:
        """Age in seconds of the oldest waiting request in such queues; 0 when none waits."""
        return max((group.oldest_waiting or 0.0 for group in self.groups if among(group)), default=0.0)

    @property
    def stuck_for(self) -> float:
        """Seconds for which work that could begin has waited and nothing has begun anywhere.

        What waits behind its own user's running request could not. Where something ends, the next one begins at once.
        """
        could = (QueueState.IDLE, QueueState.READY)
        waits = self.oldest_waiting(lambda group: not group.paused and group.state in could)
        return min([waits, *(group.last_began for group in self.groups if group.last_began is not None)])

    @property
    def stuck(self) -> bool:
        """Whether that is too long for what runs."""
        return self.stuck_for >= (STUCK_BUSY_SECONDS if self.queues(QueueState.DRAINING) else STUCK_SECONDS)

    @property
    def moves(self) -> bool:
        """Whether no queue is blocked and what waits goes on."""
        return not self.stuck and not self.queues(QueueState.BLOCKED)

    @property
    def ages(self) -> dict[str, float]:
        """The same of queues that are `moving`, `blocked`, `paused` or `held_back` by a kind: each is one of them."""
        return {
            "moving": self.oldest_waiting(
                lambda group: not (group.paused or group.held_back) and group.state != QueueState.BLOCKED
            ),
            "blocked": self.oldest_waiting(lambda group: not group.paused and group.state == QueueState.BLOCKED),
            "held_back": self.oldest_waiting(lambda group: not group.paused and group.held_back),
            "paused": self.oldest_waiting(lambda group: group.paused),
        }


def measure() -> Backlog:
    """All queues as they are now."""
    began = time.monotonic()
    rows = BY_STATE.rows()
    around = CLUSTER_STATUS.row(shards=settings.ENV.dispatch_shards, workers=WORKERS, silent=SILENT_SECONDS)
    assert around is not None  # noqa: S101  (it has no WHERE)
    kinds = deployment.at_work()
    owed = max((row.oldest_unpublished or 0.0 for row in rows), default=0.0)
    return Backlog(
        [
            Group(
                QueueState(r.state), r.paused, r.queues, r.depth, r.deepest, r.oldest_waiting, r.held_back, r.last_began
            )
            for r in rows
        ],
        around.paused,
        sum(row.unpublished for row in rows),
        {"publish": owed, "schedule": around.oldest_due or 0.0, "wake": around.oldest_wake or 0.0},
        around.dispatchers,
        around.workers,
        around.oldest_transaction or 0.0,
        time.monotonic() - began,
        kinds,
    )


class Recent:
    """The newest measurement, which all who ask within a short time share."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._newest: Backlog | None = None
        self._until = 0.0

    def latest(self) -> Backlog:
        """As `measure` above, at most CACHED_SECONDS old, older only if looking takes long."""
        with self._lock:
            if self._newest is None or time.monotonic() >= self._until:
                self._newest = measure()
                self._until = time.monotonic() + max(CACHED_SECONDS, CACHED_TIMES * self._newest.took)
            return self._newest


recent = Recent()
