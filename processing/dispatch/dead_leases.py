"""Ends the leases of workers that died, so that their queues go on. Each is its queue's own affair."""

import time

import structlog
from django.db import InterfaceError, OperationalError

from processing import metrics
from queues.lifecycle import outbox
from queues.lifecycle.lease import WORKERS
from queues.lifecycle.outbox import Shard
from queues.lifecycle.recovery import recover
from queues.notify.workers import may_live
from queues.sql.statement import left_out

log = structlog.get_logger()

DEAD_SECONDS = 1.0  # a worker whose lock has been free for so long is dead ..
SETTLED_SECONDS = 5.0  # .. if this process has not lost PostgreSQL itself lately
AT_ONCE_SECONDS = 0.2  # they are ended for so long, others wait meanwhile; the rest has its turn the next time
LOCK_SECONDS = 0.01  # how long ending one waits for a row that somebody has locked ..
AGAIN_SECONDS, LONGEST_AGAIN = 0.5, 5.0  # .. and when it is tried again: each time after twice as long

LeaseOf = tuple[int, int]  # a queue and a fence


class DeadLeases:
    """Those of one shard, as its leader sees them.

    A lock that is free may only mean that its holder lost its connection and soon takes it again. So it counts when it
    has been free for a while, and not shortly after this process lost its own: PostgreSQL may have ended everybody's.
    Nor does it where the holder says in Redis that it lives, or Redis does not answer: it has its lease, to the end.
    """

    def __init__(self, shard: Shard) -> None:
        self.shard = shard
        self._lost_postgresql = float("-inf")  # when, on the monotonic clock
        self._doubted: dict[LeaseOf, float] = {}  # whose worker seems dead, and since when
        self._again: dict[LeaseOf, tuple[float, float]] = {}  # not ended: the next try, the wait before it

    def settle(self) -> None:
        """PostgreSQL was lost just now."""
        self._lost_postgresql = time.monotonic()

    def end(self, count: int) -> list[int]:
        """End those whose time has come, of the first `count`. The queues that want a token."""
        now = time.monotonic()
        all_may_reconnect = now - self._lost_postgresql < SETTLED_SECONDS
        doubted, woken = {}, []
        found = outbox.dead_leases(self.shard, WORKERS, count)
        living = may_live({lease.worker_id for lease in found if not lease.expired})
        for queue_id, fence, worker_id, expired in found:
            since = now if all_may_reconnect else self._doubted.get((queue_id, fence), now)
            doubted[queue_id, fence] = since
            next_try, _ = self._again.get((queue_id, fence), (now, 0.0))
            in_time = time.monotonic() - now < AT_ONCE_SECONDS
            is_dead = now - since >= DEAD_SECONDS and worker_id not in living
            if (expired or is_dead) and next_try <= now and in_time:
                woken += self._end_one(queue_id, fence, expired)
        self._doubted = doubted
        self._again = {lease: again for lease, again in self._again.items() if lease in doubted}
        return woken

    def _end_one(self, queue_id: int, fence: int, expired: bool) -> list[int]:
        """The queue, if it wants a token. One that is locked, or cannot be ended, is tried again later."""
        try:
            wants_token = recover(queue_id, fence, patience=LOCK_SECONDS)
        except (OperationalError, InterfaceError) as error:
            if not left_out(error):
                raise
            log.warning("a lease cannot be ended: its queue is locked", queue=queue_id, fence=fence)
        except Exception:
            log.exception("a lease cannot be ended", queue=queue_id, fence=fence)
        else:
            log.warning("a lease ended with its worker", queue=queue_id, fence=fence, expired=expired)
            metrics.LEASES_ENDED.labels("expired" if expired else "dead").inc()
            return [queue_id] if wants_token else []
        _, waited = self._again.get((queue_id, fence), (0.0, 0.0))
        delay = min(LONGEST_AGAIN, 2 * waited or AGAIN_SECONDS)
        self._again[queue_id, fence] = (time.monotonic() + delay, delay)
        return []
