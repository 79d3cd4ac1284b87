"""Brings to RabbitMQ what PostgreSQL accepted, in order, and wakes queues: one leader for each shard of the users.

    while dispatch_next(): pass

is the whole of it; the rest is who leads, when to look, and what to do while a server is away.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import structlog
from django.db import DataError, IntegrityError, connection
from django.db import Error as DatabaseError

from processing import metrics
from processing.broker.errors import BrokerUnavailable, QueueUnavailable
from processing.broker.pointers import queue_name
from processing.broker.rabbitmq import Publisher
from processing.dispatch.backoff import Backoff
from processing.dispatch.beside import Duties, Retries, Search, named
from processing.dispatch.dead_leases import DeadLeases
from processing.dispatch.reaper import Reaper
from processing.dispatch.rounds import Rounds
from processing.dispatch.set_aside import Parts, SetAside
from processing.dispatch.sweeper import SWEEP_SECONDS, Sweeper
from processing.dispatch.token_supply import NEW_BUNDLE, SENT_AGAIN, TokenSupply
from processing.dispatch.unmarked import Unmarked
from queues.lifecycle import outbox
from queues.lifecycle.leadership import Leadership
from queues.lifecycle.outbox import PublishBatch, Shard
from queues.lifecycle.permits import Calls
from queues.notify.hints import Listener
from queues.sql.statement import left_out

log = structlog.get_logger()

LOOK_SECONDS = 0.25  # how long a hint that was lost is waited for
GATHER_SECONDS = 0.01  # what is accepted meanwhile shares one publication; longer than hints.QUIET_SECONDS
WAKE_SECONDS = 0.05  # how often what waits for its moment is looked for while there is much to publish
RENEW_SECONDS = 0.5  # how often a leader shows that it makes progress
PERMIT_SECONDS = 0.05  # the same while somebody waits for a permit of a kind
STANDBY_SECONDS = 0.5
STALE_SECONDS = 5.0  # a queue that is ready for so long may have lost its token
DOUBTFUL_A_SWEEP = 10
UNLOCKED_SECONDS = 0.005  # most who have a queue's row locked have committed by then
SWEEPS_A_STEP = 1000
GATHER_IN_CROWD_SECONDS = 0.05  # while tokens wait in a crowd, fewer of them do for all


class Dispatcher:
    """Leads one shard as long as it renews the shard's lease; stands by otherwise."""

    def __init__(self, shard: Shard) -> None:
        self.shard = shard
        self.publisher = Publisher()
        self.tokens = TokenSupply(shard, self.publisher)
        self.listener = Listener()
        self.leadership = Leadership(shard.number)
        self.leading = threading.Event()
        self.sweeper = Sweeper(shard, self.leading)
        self.unmarked = Unmarked()
        self.dead_leases = DeadLeases(shard)
        self.calls = Calls()
        self._stands_by = False
        self._renewed = 0.0
        self._rounds = Rounds(shard, self.publisher)
        self._woke = self._swept = 0.0
        self._backoff = Backoff()
        self._set_aside: SetAside[int] = SetAside()  # queues that RabbitMQ has no word of
        self._retries = Retries()
        self._parts = Parts()
        self._search = Search(shard)
        self._duties = Duties()
        self._reaper = Reaper(shard, self.publisher)
        self.looked = time.monotonic()  # it goes round its loop

    def run(self, stop: threading.Event) -> None:
        """Lead, or stand by, until `stop` is set. A server that is away is waited for, with jitter.

        Raises what nobody expects, whether it happens here or in the sweeper's thread.
        """
        self._stand_by()
        sweeper = threading.Thread(target=self.sweeper.run, args=(stop,), name=f"sweeper {self.shard.number}")
        sweeper.daemon = True  # one that hangs does not keep a process with a defect
        sweeper.start()
        try:
            while not stop.is_set():
                self.looked = time.monotonic()
                if self.sweeper.defect is not None:
                    raise self.sweeper.defect
                with self._servers_may_be_away(stop):
                    self._go_round(stop)
            if self.leading.is_set():
                with suppress(DatabaseError):
                    self.leadership.resign()
        finally:
            self._stand_by()
            self.listener.close()
            connection.close()
        sweeper.join(self._backoff.longest)

    @contextmanager
    def _servers_may_be_away(self, stop: threading.Event) -> Iterator[None]:
        """Who loses a server takes the lead anew once it is there, if nobody else has done so meanwhile."""
        try:
            yield
        except (IntegrityError, DataError):
            raise  # no server's fault
        except DatabaseError as error:
            if left_out(error):
                log.warning("left out what is locked or too slow", error=str(error).strip())
                self._backoff.wait(stop)
                return
            self.dead_leases.settle()
            self._stand_by()
            connection.close()
            self._back_off("PostgreSQL", error, stop)
        except BrokerUnavailable as error:
            self._stand_by()
            self._back_off("RabbitMQ", error, stop)

    def _go_round(self, stop: threading.Event) -> None:
        if not self.leading.is_set():
            if not self.take_lead():
                if not self._stands_by:
                    log.info("standing by", shard=self.shard.number, of=self.shard.of)
                self._stands_by = True
                self._backoff.over()
                stop.wait(STANDBY_SECONDS)
                return
            self._stands_by = False
            self._renewed = time.monotonic()
            self.leading.set()
            metrics.LEADING.labels(str(self.shard.number)).set(1)
            log.info("leading", shard=self.shard.number, of=self.shard.of)
        more = self.step()
        self._backoff.over()
        if not self.keep_lead():
            log.warning("another one leads now", shard=self.shard.number)
            self._stand_by()
        elif not more:
            self.listener.wait(PERMIT_SECONDS if self.calls.waited_for else LOOK_SECONDS)
        elif not self._rounds.behind:
            stop.wait(GATHER_IN_CROWD_SECONDS if self.tokens.crowded else GATHER_SECONDS)

    def _stand_by(self) -> None:
        self.leading.clear()
        metrics.LEADING.labels(str(self.shard.number)).set(0)
        self._set_aside.try_all()  # whoever leads meanwhile may have repaired them
        metrics.QUEUES_SET_ASIDE.labels(str(self.shard.number)).set(0)
        self.publisher.close()
        self.unmarked.clear()
        self.tokens.lose()

    def take_lead(self) -> bool:
        """Whether this process leads the shard from now on. Raises BrokerUnavailable: who has no RabbitMQ leads not."""
        if not self.leadership.free():
            return False
        self.publisher.answers()
        if self.leadership.take():
            return True
        self.publisher.close()
        return False

    def keep_lead(self) -> bool:
        """Whether it leads still. To be called after a step: what there was is published, and if RabbitMQ answers now,
        that is progress, and renews the lead. Raises BrokerUnavailable.
        """
        if time.monotonic() - self._renewed < RENEW_SECONDS:
            return True
        self.publisher.answers()
        self._renewed = time.monotonic()
        return self.leadership.renew()

    def step(self) -> bool:
        """Do a part of all that is to be done now; whether there is more of it."""
        if self.tokens.begin():
            self.send_again(0, SENT_AGAIN)
        self._duties.begin()
        more_to_wake = False
        if time.monotonic() - self._woke >= (GATHER_SECONDS if self.calls.waited_for else WAKE_SECONDS):
            more_to_wake = self.wake()
            self._woke = 0.0 if more_to_wake else time.monotonic()
        dispatched = self.dispatch_next()
        if time.monotonic() - self._swept >= SWEEP_SECONDS:
            self.sweep()
            self._swept = time.monotonic()
        return dispatched or more_to_wake

    def wake(self) -> bool:
        """Let those go on whose moment has come: scheduled requests into line, queues that wait for a time or a permit.
        Whether more have to.
        """
        entered = self._parts.do("scheduled", lambda: outbox.enter_line(self.shard, SWEEPS_A_STEP), int)
        more_called = self._parts.do("permits", self.calls.call, bool)
        woken = self._parts.do("backoff", lambda: outbox.wake(self.shard, SWEEPS_A_STEP), list[int])
        if woken:
            log.debug("woken", queues=len(woken))
        self.tokens.send(woken)
        return entered == SWEEPS_A_STEP or more_called

    def dispatch_next(self) -> bool:
        """Publish a part of what is unpublished, mark it, send tokens to the queues that woke. False: nothing left."""
        self.mark(self.unmarked.due())
        self.mark(self._retried())
        due = self._rounds.next(
            self.unmarked.queue_ids, lambda batch: self._set_aside.holds(batch.queue_id), self._retries.has
        )
        mine = [batch for batch in due if not self._retries.has(batch)]
        self._retries.begin([batch for batch in due if self._retries.has(batch)])
        published = self._took(mine, self.publisher.publish(map(named, mine))) if mine else []
        self.mark(published)
        return self._rounds.more(bool(published))

    def _retried(self) -> list[PublishBatch]:
        """What was published beside. Where that got no connection, each is tried next with the others."""
        batches, failed = self._retries.take()
        if failed is not None:
            return self._took(batches, failed)
        for batch in batches:
            self._set_aside.add(batch.queue_id)
            self._retries.forget(batch)
        return []

    def _took(self, batches: list[PublishBatch], failed: dict[str, QueueUnavailable]) -> list[PublishBatch]:
        """Those that RabbitMQ has. A queue that it has no word of gets another name, and its turn later."""
        names = {queue_name(batch.queue_id, batch.generation): batch for batch in batches}
        published = [batch for name, batch in names.items() if name not in failed]
        count = sum(batch.target - batch.before for batch in published)
        metrics.PUBLISHED.inc(count)
        log.debug("published", requests=count, queues=len(published))
        for batch in published:
            self._set_aside.forget(batch.queue_id)
            self._retries.forget(batch)
        if failed:
            self._rename({names[name]: why for name, why in failed.items()})
        return published

    def _rename(self, failed: dict[PublishBatch, QueueUnavailable]) -> None:
        for batch, why in failed.items():
            self._set_aside.add(batch.queue_id)
            self._retries.add(batch)
            log.warning("a queue is set aside", queue=batch.queue_id, generation=batch.generation, error=str(why))
        metrics.QUEUES_SET_ASIDE.labels(str(self.shard.number)).set(len(self._set_aside))
        queues = [(p.queue_id, p.generation) for p, why in failed.items() if why.helps_to_rename]
        renamed = set(outbox.rename(queues))
        metrics.QUEUES_RENAMED.labels("dispatcher").inc(len(renamed))
        for queue in queues:
            if queue[0] in renamed:
                self._reaper.add(queue_name(*queue))
        if any(why.may_be_its_node for why in failed.values()):
            self._search.begin()

    def mark(self, batches: list[PublishBatch]) -> None:
        """Mark what is published, and send tokens to the queues that woke. What is locked has its turn later."""
        if not batches:
            return
        woken, locked = outbox.mark_published(batches)
        fresh = [batch for batch in locked if batch not in self.unmarked]
        if fresh:
            time.sleep(UNLOCKED_SECONDS)
            more, still = outbox.mark_published(fresh)
            woken += more
            locked = [p for p in locked if p in self.unmarked] + still
        self.unmarked.put(locked)
        late = {batch.queue_id for batch in locked}
        self.unmarked.forget([batch for batch in batches if batch.queue_id not in late])
        self.tokens.send(woken, NEW_BUNDLE)

    def sweep(self) -> None:
        """Repair what nobody else will: dead leases, lost tokens, queues kept for nobody."""
        self.publisher.keep_alive()
        self._parts.do("dead leases", self.end_dead_leases, lambda: None)
        # While tokens wait nobody knows whose are lost: a few of the longest ready get another, never a storm.
        count = DOUBTFUL_A_SWEEP if self.tokens.waiting() else SWEEPS_A_STEP
        self.send_again(STALE_SECONDS, count)
        self._parts.do("idle queues", self._reaper.step, lambda: None)
        self._set_aside.forget_old()
        self._retries.forget_but(self._set_aside)
        metrics.QUEUES_SET_ASIDE.labels(str(self.shard.number)).set(len(self._set_aside))

    def send_again(self, seconds: float, count: int) -> None:
        """Give queues that have been ready for so long another token."""
        stale = self._parts.do("lost tokens", lambda: outbox.stale_ready(self.shard, seconds, count), list[int])
        self.tokens.send(stale)

    def end_dead_leases(self) -> None:
        """Let queues go on whose worker died."""
        self.tokens.send(self.dead_leases.end(SWEEPS_A_STEP))

    def _back_off(self, what: str, error: Exception, stop: threading.Event) -> None:
        metrics.SERVERS_AWAY.labels(what).inc()
        log.warning("a server is away", what=what, error=str(error).strip())
        self._backoff.wait(stop)
