"""What was published but could not be marked: somebody holds the queue's row. Each has its turn later, alone."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from queues.lifecycle.outbox import PublishBatch

FIRST_SECONDS, LONGEST_SECONDS = 0.02, 1.0
FORGET_SECONDS = 60.0  # then it is read and published again, if there is still such a queue
MOST = 2000  # queues; one more and the one whose turn comes first is forgotten, which publishes it again


@dataclass(slots=True)
class _Later:
    batch: PublishBatch
    due: float
    delay: float
    since: float


class Unmarked:
    """The batches whose queues were locked. Until they are marked their queues are not read again, so nothing of them
    is published twice. After a while of its own each is marked again: the broker has it, however late the mark comes.
    """

    def __init__(self) -> None:
        self._later: dict[int, _Later] = {}

    def __contains__(self, batch: PublishBatch) -> bool:
        later = self._later.get(batch.queue_id)
        return later is not None and later.batch.generation == batch.generation

    @property
    def queue_ids(self) -> list[int]:
        """The queues that are left out."""
        return list(self._later)

    def put(self, batches: Sequence[PublishBatch]) -> None:
        """Leave these out from now on, each for twice as long as the last time."""
        now = time.monotonic()
        for batch in batches:
            known = self._later.pop(batch.queue_id, None)
            if known is not None and known.batch.generation > batch.generation:
                batch = known.batch  # its queue got another name meanwhile
            if known is not None and now - known.since > FORGET_SECONDS:
                continue
            if known is None and len(self._later) >= MOST:
                del self._later[min(self._later, key=lambda queue_id: self._later[queue_id].due)]
            delay = FIRST_SECONDS if known is None else min(LONGEST_SECONDS, 2 * known.delay)
            self._later[batch.queue_id] = _Later(batch, now + delay, delay, now if known is None else known.since)

    def due(self) -> list[PublishBatch]:
        """Those whose turn it is."""
        now = time.monotonic()
        return [later.batch for later in self._later.values() if later.due <= now]

    def forget(self, batches: Sequence[PublishBatch]) -> None:
        """They are marked, or were moved by another: their queues are read again."""
        for batch in batches:
            if batch in self:
                del self._later[batch.queue_id]

    def clear(self) -> None:
        """Another leads now."""
        self._later.clear()
