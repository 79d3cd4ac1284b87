"""Brings to RabbitMQ what PostgreSQL accepted, in order, and wakes queues: one leader for each shard of the users.

    while dispatch_next(): pass

is the whole of it; the rest is who leads, when to look, and what to do while a server is away.
"""

import random
import threading
import time
from contextlib import suppress

import structlog
from django.db import Error as DatabaseError
from django.db import connection

from accounts import forgetting
from processing import broker, metrics
from processing.dispatch.beside import Deletion, Search
from processing.dispatch.set_aside import SetAside
from processing.rabbitmq import BrokerUnavailable, Pointer, Publisher, QueueUnavailable, names_of, queue_name
from processing.watch import LOCK_CLASS as WORKERS_LOCK_CLASS
from queues import idempotency, outbox
from queues.hints import Listener
from queues.interventions import NotPossible, give_up
from queues.outbox import Parcel, Shard
from queues.recovery import recover
from queues.states import Status

log = structlog.get_logger()

LOCK_CLASS = 0x6F776472  # "owdr": the leaders' advisory locks
LOOK_SECONDS = 0.25  # how long a hint that was lost is waited for
GATHER_SECONDS = 0.01  # what is accepted meanwhile shares one publication; longer than hints.QUIET_SECONDS
WAKE_SECONDS = 0.05  # how often what waits for its moment is looked for while there is much to publish
SWEEP_SECONDS = 0.25
STANDBY_SECONDS = 1.0
DEAD_SECONDS = 1.0  # a worker whose lock has been free for so long is dead ..
SETTLED_SECONDS = 5.0  # .. if this process has not lost PostgreSQL itself lately
STALE_SECONDS = 5.0  # a queue that is ready for so long may have lost its token
DOUBTFUL_A_SWEEP = 10
PRUNE_SECONDS = 60.0  # how often old sessions and lines of the audit trail are looked for
REAP_SECONDS = 600.0  # RabbitMQ keeps the queue of an idle user for so long
QUEUES_A_STEP, REQUESTS_A_QUEUE, SWEEPS_A_STEP = 500, 200, 1000
LARGEST_BUNDLE, ENOUGH_TOKENS = 16, 32
CROWD_OF_TOKENS = 4 * ENOUGH_TOKENS  # where so many wait, who wakes now is not served at once anyway ..
GATHER_IN_CROWD_SECONDS = 0.05  # .. and gains more if fewer tokens do for all
LONGEST_BACKOFF = 3.0
TOKENS_SENT = metrics.TOKENS_SENT.labels("dispatcher")


class Dispatcher:
    """Leads one shard as long as it holds the shard's lock; stands by otherwise."""

    def __init__(self, shard: Shard) -> None:
        self.shard = shard
        self.publisher = Publisher()
        self.listener = Listener()
        self._after = 0  # the queue id where the last step ended: everyone's turn comes
        self._behind = False  # whether more was unpublished than one step takes
        self._woke = self._swept = self._pruned = 0.0
        self._failures = 0
        self._token_queue_exists = False
        self._set_aside: SetAside[int] = SetAside()  # queues that RabbitMQ has no word of
        self._search = Search(shard)
        self._deletion = Deletion()
        self._leftovers: SetAside[str] = SetAside(first=10.0, longest=600.0, most=10_000)  # to be deleted
        self._crowded = False  # as the last sweep saw it
        self._lost_postgresql = float("-inf")  # when, on the monotonic clock
        self.looked = time.monotonic()  # it goes round its loop
        self._doubted: dict[tuple[int, int], float] = {}  # leases whose worker seems dead, and since when

    def run(self, stop: threading.Event) -> None:
        """Lead, or stand by, until `stop` is set. A server that is away is waited for, with jitter."""
        leading = False
        metrics.LEADING.labels(str(self.shard.number)).set(0)
        while not stop.is_set():
            self.looked = time.monotonic()
            try:
                if not leading:
                    leading = self.take_lead()
                    if not leading:
                        stop.wait(STANDBY_SECONDS)
                        continue
                    metrics.LEADING.labels(str(self.shard.number)).set(1)
                    log.info("leading", shard=self.shard.number, of=self.shard.of)
                more = self.step()
                self._failures = 0
                if not more:
                    self.listener.wait(LOOK_SECONDS)
                elif not self._behind:
                    stop.wait(GATHER_IN_CROWD_SECONDS if self._crowded else GATHER_SECONDS)
            except DatabaseError as error:
                leading = False  # the lock went with its connection
                self._lost_postgresql = time.monotonic()
                metrics.LEADING.labels(str(self.shard.number)).set(0)
                connection.close()
                self._back_off("PostgreSQL", error, stop)
            except BrokerUnavailable as error:
                self.publisher.close()
                self._token_queue_exists = False
                self._back_off("RabbitMQ", error, stop)
        self.publisher.close()
        self.listener.close()
        connection.close()

    def take_lead(self) -> bool:
        """Whether this process leads the shard from now on: it holds the shard's lock until its connection ends."""
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_try_advisory_lock(%s, %s)", [LOCK_CLASS, self.shard.number])
            row = cursor.fetchone()
        return bool(row and row[0])

    def step(self) -> bool:
        """Do a part of all that is to be done now; whether there is more of it."""
        if not self._token_queue_exists:
            broker.hold_token_queue(self.publisher)
            self._token_queue_exists = True
        more_to_wake = False
        if time.monotonic() - self._woke >= WAKE_SECONDS:
            more_to_wake = self.wake()
            self._woke = 0.0 if more_to_wake else time.monotonic()
        dispatched = self.dispatch_next()
        if time.monotonic() - self._swept >= SWEEP_SECONDS:
            self.sweep()
            self._swept = time.monotonic()
        return dispatched or more_to_wake

    def wake(self) -> bool:
        """Let those go on whose moment has come: scheduled requests into line, waiting queues. Whether more have to."""
        entered = outbox.enter_line(self.shard, SWEEPS_A_STEP)
        woken = outbox.wake(self.shard, SWEEPS_A_STEP)
        if woken:
            log.debug("woken", queues=len(woken))
        self.send_tokens(woken)
        return entered == SWEEPS_A_STEP

    def dispatch_next(self) -> bool:
        """Publish a part of what is unpublished, mark it, send tokens to the queues that woke. False: nothing left."""
        parcels = outbox.unpublished(self.shard, self._after, QUEUES_A_STEP, REQUESTS_A_QUEUE)
        self._behind = len(parcels) == QUEUES_A_STEP or any(len(p.requests) == REQUESTS_A_QUEUE for p in parcels)
        if not parcels:
            starts_over, self._after = self._after > 0, 0
            return starts_over
        due = [parcel for parcel in parcels if not self._set_aside.holds(parcel.queue_id)]
        published = self._publish(due) if due else []
        if published:
            self.send_tokens(outbox.mark_published(published))
        self._after = parcels[-1].queue_id
        return self._behind or bool(published)

    def _publish(self, parcels: list[Parcel]) -> list[Parcel]:
        """Publish; those that RabbitMQ has. A queue that it has no word of gets another name, and its turn later."""
        named = {queue_name(parcel.queue_id, parcel.generation): parcel for parcel in parcels}
        failed = self.publisher.publish(
            (name, [Pointer(seq, id_) for seq, id_ in parcel.requests]) for name, parcel in named.items()
        )
        published = [parcel for name, parcel in named.items() if name not in failed]
        count = sum(len(parcel.requests) for parcel in published)
        metrics.PUBLISHED.inc(count)
        log.debug("published", requests=count, queues=len(published))
        for parcel in published:
            self._set_aside.forget(parcel.queue_id)
        if failed:
            self._rename({named[name]: why for name, why in failed.items()})
        return published

    def _rename(self, failed: dict[Parcel, QueueUnavailable]) -> None:
        for parcel, why in failed.items():
            self._set_aside.add(parcel.queue_id)
            log.warning("a queue is set aside", queue=parcel.queue_id, generation=parcel.generation, error=str(why))
        metrics.QUEUES_SET_ASIDE.set(len(self._set_aside))
        queues = [(p.queue_id, p.generation) for p, why in failed.items() if why.helps_to_rename]
        renamed = set(outbox.rename(queues))
        metrics.QUEUES_RENAMED.labels("dispatcher").inc(len(renamed))
        for queue in queues:
            if queue[0] in renamed:
                self._leftovers.add(queue_name(*queue))
        if any(why.may_be_its_node for why in failed.values()):
            self._search.begin()

    def send_tokens(self, queue_ids: list[int]) -> None:
        """Ask the workers to drain these queues. A token lost on the way is sent again by the sweep.

        Many at once are bundled, but so that there are enough tokens for all threads.
        """
        enough = 1 if self._crowded else ENOUGH_TOKENS
        size = max(1, min(LARGEST_BUNDLE, len(queue_ids) // enough))
        tokens = [broker.token(*queue_ids[at : at + size]) for at in range(0, len(queue_ids), size)]
        if tokens:
            try:
                self.publisher.send(broker.token_queue(), tokens, broker.TOKEN_PROPERTIES)
            except BrokerUnavailable:
                self.publisher.close()
                self._hold_token_queue()  # if it was that one's fault, all that is ready gets its token again
            TOKENS_SENT.inc(len(tokens))

    def sweep(self) -> None:
        """Repair what nobody else will: dead leases, lost tokens, queues kept for nobody; and forget what is old."""
        self.publisher.keep_alive()
        for request_id in outbox.lapsed(self.shard, SWEEPS_A_STEP):
            with suppress(NotPossible):  # its owner was faster
                give_up(request_id, Status.EXPIRED)
        self.end_dead_leases()
        # While tokens wait nobody knows whose are lost: a few of the longest ready get another, never a storm.
        count = DOUBTFUL_A_SWEEP if self._tokens_waiting() else SWEEPS_A_STEP
        self.send_tokens(outbox.stale_ready(self.shard, STALE_SECONDS, count))
        idempotency.prune(SWEEPS_A_STEP)
        if time.monotonic() - self._pruned >= PRUNE_SECONDS and forgetting.prune(SWEEPS_A_STEP) < SWEEPS_A_STEP:
            self._pruned = time.monotonic()
        self._delete_queues()
        self._set_aside.forget_old()
        metrics.QUEUES_SET_ASIDE.set(len(self._set_aside))

    def _delete_queues(self) -> None:
        """Those of idle users, and earlier names, once RabbitMQ has a word of them again."""
        if self._deletion.busy:
            return
        for name in self._deletion.names:
            if name in self._deletion.left:
                self._leftovers.add(name)
            else:
                self._leftovers.forget(name)
        self._deletion.names = []
        idle = outbox.reap(self.shard, REAP_SECONDS, SWEEPS_A_STEP // 10)
        names = [name for queue in idle for name in names_of(*queue)]
        names += self._leftovers.due(SWEEPS_A_STEP // 10)
        if names:
            self._deletion.begin(names)

    def _tokens_waiting(self) -> int:
        """How many tokens RabbitMQ has; if somebody deleted their queue, there is one again."""
        waiting = self._hold_token_queue()
        metrics.TOKENS_WAITING.set(waiting)
        self._crowded = waiting >= CROWD_OF_TOKENS
        return waiting

    def _hold_token_queue(self) -> int:
        """How many tokens wait. If their queue has another name now, those in the old one are lost: sent again."""
        before = broker.token_queue()
        waiting = broker.hold_token_queue(self.publisher)
        if broker.token_queue() != before:
            self.send_tokens(outbox.stale_ready(self.shard, 0, SWEEPS_A_STEP))
        return waiting

    def end_dead_leases(self) -> None:
        """Let queues go on whose worker died.

        A lock that is free may only mean that its holder lost its connection and soon takes it again. So it counts
        when it has been free for a while, and not shortly after this process lost its own: PostgreSQL may have ended
        everybody's.
        """
        now = time.monotonic()
        all_may_reconnect = now - self._lost_postgresql < SETTLED_SECONDS
        doubted = {}
        for queue_id, fence, expired in outbox.dead_leases(self.shard, WORKERS_LOCK_CLASS, SWEEPS_A_STEP):
            since = now if all_may_reconnect else self._doubted.get((queue_id, fence), now)
            if expired or now - since >= DEAD_SECONDS:
                log.warning("a lease ended with its worker", queue=queue_id, fence=fence, expired=expired)
                metrics.LEASES_ENDED.labels("expired" if expired else "dead").inc()
                if recover(queue_id, fence):
                    self.send_tokens([queue_id])
            else:
                doubted[queue_id, fence] = since
        self._doubted = doubted

    def _back_off(self, what: str, error: Exception, stop: threading.Event) -> None:
        self._failures += 1
        metrics.SERVERS_AWAY.labels(what).inc()
        jitter = random.uniform(0.5, 1)  # noqa: S311  (spreads load, guards nothing)
        delay = min(LONGEST_BACKOFF, 0.1 * 2 ** min(self._failures, 10)) * jitter
        log.warning("a server is away", what=what, error=str(error).strip(), next_try_seconds=round(delay, 2))
        stop.wait(delay)
