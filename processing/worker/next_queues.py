"""The queues that a run has still to lease: many together, and one by one those that cannot be had so."""

import time
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import structlog
from django.db import InterfaceError, OperationalError, connection

from processing import metrics
from processing.broker import token_sender
from processing.worker import paces
from processing.worker.watchdog import Watchdog
from queues.lifecycle import lease as leases
from queues.lifecycle.group import Group
from queues.lifecycle.lease import Lease
from queues.sql.statement import left_out

log = structlog.get_logger()
T = TypeVar("T")

MOST_TOGETHER = 32  # queues, each with a channel of its own
RETRY_SECONDS = 0.1  # after PostgreSQL failed, before it is asked again
KNOWN_SECONDS = 0.3  # a process that PostgreSQL does not know of passes its tokens on: others may do better
START_SECONDS = 5.0  # one that was started for one request waits longer


def _take_each(asked: Sequence[tuple[int, int]]) -> list[Lease | bool]:
    """For each queue and worker its lease; where there is none: whether it may be had by itself."""
    found: dict[tuple[int, int], Lease | bool] = {}
    for worker_id in {worker_id for _, worker_id in asked}:
        taken, left_out = leases.take_together([id_ for id_, its in asked if its == worker_id], worker_id)
        found |= {(lease.queue_id, worker_id): lease for lease in taken} | dict.fromkeys(
            ((id_, worker_id) for id_ in left_out), True
        )
    return [found.pop(one, False) for one in asked]  # of two who ask for the same, one has it


_together: Group[tuple[int, int], Lease | bool] = Group(_take_each)


class NextQueues:
    """Those of one token. `left` is the fence of the lease that is left to this process, for one request."""

    def __init__(self, watch: Watchdog, queue_ids: Iterable[int], left: int | None = None) -> None:
        self.watch = watch
        self.left = left
        self._together = list(dict.fromkeys(queue_ids))
        self._apart: list[int] = []  # somebody had their row, or a worker died there

    def __bool__(self) -> bool:
        return bool(self._together or self._apart)

    def give_up(self) -> list[int]:
        """Which are left; this run leases none of them."""
        left, self._together, self._apart = [*self._together, *self._apart], [], []
        return left

    def lease(self) -> list[Lease]:
        """Lease what is next. None: there is nothing left for this process."""
        while self:
            if self.watch.stopping.is_set():
                return []
            if not self.watch.wait_until_known(KNOWN_SECONDS if self.left is None else START_SECONDS):
                time.sleep(RETRY_SECONDS)  # the others may be as far; no hurry
                return []
            if taken := [lease for lease in self._take() if self.watch.know(lease)]:
                return taken
        return []

    def _take(self) -> list[Lease]:
        """Many together; one by one, and waiting for its row, what cannot be had so."""
        if self.left is not None or not self._together:
            (queue_id,) = asked = [(self._together or self._apart).pop(0)]
            lease = self._answer(lambda: Lease.take(queue_id, self.watch.worker_id, self.left), asked, alone=True)
            taken = [] if lease is None else [lease]
        else:
            asked = self._some()
            found = self._answer(lambda: _together.ask([(id_, self.watch.worker_id) for id_ in asked]), asked) or []
            taken = [one for one in found if isinstance(one, Lease)]
            left_out = [id_ for id_, one in zip(asked, found, strict=False) if one is True]
            self._apart += left_out
            asked = [id_ for id_ in asked if id_ not in left_out]
        metrics.TOKENS_IN_VAIN.inc(len(asked) - len(taken))
        return taken

    def _some(self) -> list[int]:
        """Those that are leased next. The others are others', if handlers take so long that they would wait."""
        size = paces.queues_in_time(MOST_TOGETHER)
        asked, self._together = self._together[:size], self._together[size:]
        if size < MOST_TOGETHER:
            left, self._together = self._together, []
            token_sender.pass_on(left, size)
        return asked

    def _answer(self, ask: Callable[[], T], asked: list[int], alone: bool = False) -> T | None:
        """What PostgreSQL says, asked twice; who was not heard has the queues passed on."""
        for again in (True, False):
            try:
                return ask()
            except (OperationalError, InterfaceError) as error:
                # Had they been taken all the same, the watch gives them back.
                log.warning("a turn could not begin", queues=asked, error=str(error).strip(), again=again)
                if alone and left_out(error):  # nobody comes back to a locked row before the sweep finds it free
                    asked.clear()
                    return None
                connection.close()
                time.sleep(RETRY_SECONDS)
        token_sender.pass_on(asked)
        asked.clear()
        return None
