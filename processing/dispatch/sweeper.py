"""What the leader does beside publishing, in a thread and on a connection of its own: ends requests whose time is over,
and deletes what was kept long enough. All in parts that leave out what is locked, with a rest as long after each.
"""

import threading
import time

import structlog
from django.db import DataError, IntegrityError, connection
from django.db import Error as DatabaseError

from accounts import retention
from processing import metrics
from processing.dispatch.backoff import Backoff
from processing.dispatch.set_aside import Parts
from queues.enqueue import idempotency
from queues.lifecycle.expiry import expire
from queues.lifecycle.outbox import Shard
from queues.operations import retention as pruning

log = structlog.get_logger()

SWEEP_SECONDS = 0.25
PRUNE_SECONDS = 60.0  # how often what is old is looked for
EXPIRE_A_STEP = 200  # so many requests of any users end together; their queues are locked for as long as it takes
PRUNE_A_STEP = 500
LONGEST_REST = 0.25


class Sweeper:
    """Works while its dispatcher leads. `defect` is what it died of, for the dispatcher to end with it."""

    def __init__(self, shard: Shard, leading: threading.Event) -> None:
        self.shard = shard
        self.leading = leading
        self.defect: Exception | None = None
        self.looked = time.monotonic()  # it goes round its loop
        self._requests = pruning.Sweep()
        self._parts = Parts()
        self._pruned = float("-inf")

    def run(self, stop: threading.Event) -> None:
        """Sweep until `stop` is set. PostgreSQL is waited for while it is away; any other failure is `defect`."""
        backoff = Backoff()
        try:
            while not stop.is_set():
                self.looked = began = time.monotonic()
                try:
                    more = self.leading.is_set() and self.step()
                    backoff.over()
                except (IntegrityError, DataError):
                    raise  # no server's fault
                except DatabaseError as error:
                    connection.close()
                    metrics.SERVERS_AWAY.labels("PostgreSQL").inc()
                    log.warning("the sweep lost PostgreSQL", error=str(error).strip())
                    backoff.wait(stop)
                    continue
                took = time.monotonic() - began
                stop.wait(min(took, LONGEST_REST) if more else SWEEP_SECONDS)  # publishing has the other half
        except Exception as error:
            self.defect = error
        finally:
            connection.close()

    def step(self) -> bool:
        """Do a part of what is to be done; whether there is more of it."""
        expired = self._parts.do("expiry", lambda: expire(self.shard, EXPIRE_A_STEP), int)
        if expired:
            log.debug("expired", requests=expired)
        if time.monotonic() - self._pruned < PRUNE_SECONDS:
            return expired == EXPIRE_A_STEP
        more = self.prune()
        if not more:
            self._pruned = time.monotonic()
        return more or expired == EXPIRE_A_STEP

    def prune(self) -> bool:
        """Delete a part of what was kept long enough. Whether there may be more. The first shard's leader does so."""
        if self.shard.number:
            return False
        keys = self._parts.do("keys", lambda: idempotency.prune(PRUNE_A_STEP), int)
        of_accounts = self._parts.do("accounts", lambda: retention.prune(PRUNE_A_STEP), int)
        actions = self._parts.do("actions", lambda: pruning.prune_actions(PRUNE_A_STEP), int)
        requests = self._parts.do("requests", lambda: self._requests.step(PRUNE_A_STEP), bool)
        return requests or max(keys, of_accounts, actions) >= PRUNE_A_STEP
