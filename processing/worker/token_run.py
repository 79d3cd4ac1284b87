"""What a worker thread does with one token: it leases the queues that the token names, and runs their turns together.

Leased with one statement, their pointers asked for all at once, run as they come, recorded with one statement, acked
after it. Nobody in it waits for somebody slow: the watch gives back what has not begun beside a slow handler.
"""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import inf

import structlog
from django.conf import settings
from django.db import DatabaseError, connection

from processing import metrics
from processing.broker import token_sender
from processing.broker.errors import BrokerUnavailable, QueueUnavailable
from processing.broker.fetcher import Fetcher
from processing.worker import recorder
from processing.worker.coroutines.attempt import CoroutineAttempt
from processing.worker.coroutines.run import CoroutineRun
from processing.worker.isolation import Isolation
from processing.worker.next_queues import NextQueues
from processing.worker.recorder import Refused, Wanted
from processing.worker.shares import Shares
from processing.worker.turn import Turn
from processing.worker.watchdog import Watchdog
from processing.worker.watched_run import WatchedRun
from queues.exceptions import FencedOut
from queues.lifecycle import lease as leases
from queues.lifecycle import outbox
from queues.notify.changes import changed
from queues.states import QueueState

log = structlog.get_logger()

WAIT_SECONDS = 0.05  # for RabbitMQ, before those that wait for it are checked again
AWAY_SECONDS = 0.5  # what lost RabbitMQ or PostgreSQL is tried again after so long


@dataclass(frozen=True)
class WorkerProcess:
    """What the threads of a worker process share."""

    watch: Watchdog
    shares: Shares
    isolation: Isolation | None = None
    coroutines: CoroutineRun | None = None


class TokenRun(WatchedRun):
    """What its thread does. The watch looks in from its own."""

    def __init__(
        self, process: WorkerProcess, fetcher: Fetcher, queue_ids: Iterable[int], left: int | None = None
    ) -> None:
        super().__init__(process.watch, fetcher, NextQueues(process.watch, queue_ids, left))
        self.shares, self.isolation = process.shares, process.isolation
        self.coroutines = process.coroutines
        self._due_at = 0.0  # nothing has to be recorded before that

    def drain(self) -> None:
        """Run a turn of each. What goes wrong is logged; the sweeper finds the queues again."""
        self.watch.add(self)
        metrics.BUSY_THREADS.inc()
        try:
            while self._lease_next():
                self._run_turns()
                self.fetcher.settle()
        except BrokerUnavailable as error:
            log.warning("a run lost RabbitMQ", error=str(error))
            self.fetcher.close()
            self.current = None  # it is between two requests: what is over of it is recorded, too
            self._leave_all(QueueState.WAITING, AWAY_SECONDS)
        except DatabaseError as error:
            log.warning("a run lost PostgreSQL", error=str(error).strip())
            self.fetcher.close()
            connection.close()
            self.current = None
            self._leave_all(QueueState.WAITING, AWAY_SECONDS)  # if it is back: what is over is recorded, too
        except BaseException:
            self.fetcher.close()  # it may still read these queues, and the next run's are others
            self._leave_all(QueueState.READY)
            raise
        finally:
            metrics.BUSY_THREADS.dec()
            self.watch.remove(self)
            for turn in self.turns.values():
                self.watch.forget(turn.lease)
            token_sender.pass_on(self.next_queues.give_up())

    def _lease_next(self) -> bool:
        """Lease what is next. False: there is nothing left for this process."""
        leased = self.next_queues.lease()
        most = settings.ENV.turn_requests if self.next_queues.left is None else 1
        with self.lock:
            self.turns |= {lease.queue_id: Turn(self, lease, most) for lease in leased}
        for lease in leased:
            changed(lease.queue_id)
        metrics.TURNS.inc(len(leased))
        return bool(leased)

    # Running

    def _run_turns(self) -> None:
        """Run them all to their ends, and leave each queue where others can go on with it."""
        self._begin()
        while self.turns:
            moved = self._run_what_came()
            if self._is_to_record():
                self.record()
            elif not moved:
                self._wait()

    def _begin(self) -> None:
        """What is claimed first: the heads, which the leases brought."""
        claims = []
        for turn in tuple(self.turns.values()):
            lease = turn.lease
            if self.turns.get(lease.queue_id) is not turn:
                continue  # the watch gave it back while another one's row was waited for
            if lease.last_chance and self.isolation is not None:
                self._leave_to_another_process(turn)
            elif lease.careful:
                self._begin_carefully(turn)
            elif lease.waiting:
                claims.append((turn, 1))
            else:
                turn.begin([])
        self._claim(claims)
        self._open_sources()

    def _leave_to_another_process(self, turn: Turn) -> None:
        assert self.isolation is not None  # noqa: S101  (type)
        token_sender.pass_on(self.next_queues.give_up())  # it may take as long as its kind's time limit
        self.isolation.run(turn.lease)
        self._forget(turn)

    def _begin_carefully(self, turn: Turn) -> None:
        """What runs is claimed first, alone: a crash until then costs no attempt."""
        try:
            turn.recording.record(QueueState.DRAINING, 1)  # claimed from now on: it may have changed
        except FencedOut:
            self._fenced_out(turn)
            return
        if turn.is_over:
            self._end([turn])
        elif turn.lease.paused:
            turn.end_claim(QueueState.READY)
        else:
            self._claim([(turn, 1)])

    def _claim(self, claims: Sequence[tuple[Turn, int]]) -> None:
        """Begin what was claimed: few, which came along, or many, which are read."""
        claimed = {t.lease.queue_id: t.lease.came_along for t, count in claims if t.lease.has(count)}
        unread = [(turn.lease, count) for turn, count in claims if turn.lease.queue_id not in claimed]
        if unread:
            claimed |= leases.claimed(unread)
        for turn, _ in claims:
            turn.begin(claimed[turn.lease.queue_id])

    def _open_sources(self) -> None:
        """Ask RabbitMQ for the messages of all whose next one is awaited, at once."""
        blind = [turn for turn in self.turns.values() if turn.awaits and (turn.source is None or turn.source.error)]
        if blind:
            sources = self.fetcher.open_sources([(turn.name, turn.ahead) for turn in blind])
            for turn, source in zip(blind, sources, strict=True):
                turn.read(source)

    def _run_what_came(self) -> bool:
        """Of each turn what is claimed, as far as its messages are here. Whether any got further."""
        moved = False
        for turn in tuple(self.turns.values()):
            if not turn.awaits or (turn.source and turn.source.owes) or self.turns.get(turn.lease.queue_id) is not turn:
                continue
            self.current, self.turn_began = turn, time.monotonic()
            try:
                moved = turn.run_what_came() or moved
            except FencedOut:
                self._fenced_out(turn)
            except QueueUnavailable as error:
                log.warning("RabbitMQ has no word of a queue; it gets another name", name=turn.name, error=str(error))
                self._rename(turn)
            if turn.is_over and turn.lease.queue_id in self.turns:
                turn.recorded()  # with an atomic handler's writes; else nothing is to be acked, it is published again
                self._end([turn])
            self.current = None
            self.record_if_due()
        return moved

    def hand_over(self, turn: Turn, attempt: CoroutineAttempt) -> None:
        """Its lease is the coroutine's from now on; its pointer goes back. Raises BrokerUnavailable and FencedOut."""
        assert self.coroutines is not None  # noqa: S101  (it was asked whether there is one)
        assert turn.source is not None  # noqa: S101  (it read from there)
        turn.source.close()
        self.fetcher.settle()
        with self.lock:
            if self.turns.get(turn.lease.queue_id) is not turn:
                raise FencedOut  # the process ends, and has given it back
            self.coroutines.begin(attempt)
            del self.turns[turn.lease.queue_id]

    def _wait(self) -> None:
        """For the next message. Raises BrokerUnavailable."""
        sources = [turn.source for turn in self.turns.values() if turn.awaits and turn.source is not None]
        if sources:
            pending = any(turn.is_pending for turn in self.turns.values())
            self.fetcher.wait(sources, settings.ENV.record_after_ms / 1000 if pending else WAIT_SECONDS)
        else:
            time.sleep(recorder.AGAIN_SECONDS)  # for rows that are locked

    def _rename(self, turn: Turn) -> None:
        """Let go of the queue and have it published under another name. No attempt is counted."""
        try:
            turn.recording.record(QueueState.READY)
        except FencedOut:
            self._fenced_out(turn)
            return
        if outbox.rename([(turn.lease.queue_id, turn.lease.generation)]):
            metrics.QUEUES_RENAMED.labels("worker").inc()
            turn.lease.state = QueueState.IDLE  # publishing wakes it, with a token
        self._end([turn])

    # Recording

    def _is_to_record(self) -> bool:
        """Whether something is over, and nothing else is on its way that could be recorded with it, or it is time."""
        turns, now = self.turns.values(), time.monotonic()
        if now >= self._due_at and min((turn.due_at for turn in turns), default=inf) <= now:
            return True
        return not any(turn.awaits for turn in turns) and any(turn.is_pending for turn in turns)

    def record_if_due(self) -> None:
        """Record, if what is over has waited for as long as it may. Asked after every request: most often it is not."""
        now = time.monotonic()
        if now < self._due_at:
            return
        latest = now + settings.ENV.record_after_ms / 1000  # what is over later than now is due after that
        self._due_at = min((turn.due_at for turn in self.turns.values()), default=latest)
        if self._due_at <= now:
            self.record()
        self._due_at = min(self._due_at, latest)

    def record(self) -> None:
        """Write down what is over in all turns; then ack it, claim what is next, let go of what others may have."""
        with self.lock:
            wanted = [(turn, one) for turn in self.turns.values() if turn.is_pending and (one := turn.wanted())]
            began = time.monotonic()
            self._due_at = 0.0
            refused = recorder.record([one for _, one in wanted], inf, shared=True)
            self._drop(wanted, refused)
            if time.monotonic() - began > settings.ENV.lease_seconds / 2:
                self._make_sure_of_others([turn for turn, _ in wanted])
            claims, over = [], []
            for turn, one in wanted:
                if turn.lease.queue_id not in self.turns or one in refused.left_out:
                    continue
                turn.recorded()
                if turn.is_over:
                    over.append(turn)
                elif turn.lease.paused:
                    turn.end_claim(QueueState.READY)
                elif turn.then is not None:
                    claims.append((turn, one.claim))
            self._claim(claims)
        self._end(over)
        self._open_sources()

    def _make_sure_of_others(self, recorded: Sequence[Turn]) -> None:
        """PostgreSQL was away so long that these leases may have run out: nothing of them begins before a record."""
        for turn in self.turns.values():
            if turn.awaits and turn not in recorded:
                turn.end_claim(QueueState.DRAINING)

    def _drop(self, wanted: Sequence[tuple[Turn, Wanted]], refused: Refused) -> None:
        """What becomes of those whose record was not written."""
        turns = {one: turn for turn, one in wanted}
        for one in refused.fenced_out:
            self._fenced_out(turns[one])
        for one in refused.left_out:
            if not turns[one].try_again():
                log.error("a queue's row was locked for too long; its lease runs out", queue=turns[one].lease.queue_id)
                self._end([turns[one]])
        for one, error in refused.faulty:
            log.error("a record cannot be kept", queue=turns[one].lease.queue_id, error=str(error).strip())
            self._end([turns[one]])

    def _fenced_out(self, turn: Turn) -> None:
        metrics.FENCED_OUT.inc()
        log.warning("fenced out: somebody else has the queue, nothing was recorded", queue=turn.lease.queue_id)
        turn.lease.state = QueueState.IDLE  # not ours: no token either
        self._end([turn])

    def _end(self, turns: Sequence[Turn]) -> None:
        """These are over. Raises BrokerUnavailable."""
        for turn in turns:
            self._forget(turn)
            turn.end_claim(QueueState.READY)
        self._tell_rabbitmq(turns)
