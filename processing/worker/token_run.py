"""What a worker thread does with one token: it leases the queues that the token names, and runs their turns together.

Leased with one statement, their pointers asked for all at once, run as they come, recorded with one statement, acked
after it. Nobody in it waits for somebody slow: the watch gives back what has not begun beside a slow handler.
"""

import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TypeVar, cast

import structlog
from django.conf import settings
from django.db import DatabaseError, InterfaceError, OperationalError, connection

from processing import metrics
from processing.broker.rabbitmq import BrokerUnavailable, QueueUnavailable
from processing.handlers import TimeLimitExceeded
from processing.worker import recorder, tokens
from processing.worker.attempt import Attempt
from processing.worker.fetcher import Fetcher
from processing.worker.isolation import Isolation
from processing.worker.outcomes import raised
from processing.worker.recorder import LeftOut, Refused, Wanted
from processing.worker.shares import Shares
from processing.worker.turn import FAST_SECONDS, Turn
from processing.worker.watchdog import Renewal, Watch
from queues.exceptions import FencedOut
from queues.lifecycle import lease as leases
from queues.lifecycle import outbox
from queues.lifecycle.lease import Lease, keep_beginning
from queues.notify.changes import changed
from queues.states import QueueState
from queues.values import Next

log = structlog.get_logger()
T = TypeVar("T")

MOST_TOGETHER = 32  # queues, each with a channel of its own
SLOW_SECONDS = 0.25  # longer than a turn of fast handlers takes, however busy the machine is
LOOK_SECONDS = 0.05  # how often those are looked at that wait for RabbitMQ
LOCKED_SECONDS = 1.0  # a row that is locked is left alone by the watch for so long
RETRY_SECONDS = 0.1  # after PostgreSQL failed, before it is asked again
KNOWN_SECONDS = 0.3  # a process that PostgreSQL does not know of passes its tokens on: others may do better
START_SECONDS = 5.0  # one that was started for one request waits longer
UNINTERRUPTIBLE_SECONDS = 5.0  # a handler that goes on for so long after its time limit is given up with its process
BROKER_AWAY_SECONDS = 0.5  # what lost RabbitMQ is tried again after so long


@dataclass(frozen=True)
class Place:
    """What the threads of a worker process share."""

    watch: Watch
    shares: Shares
    isolation: Isolation | None = None


class TokenRun:
    """The turns of one token. The watch looks in from its own thread, holding `lock` while it changes anything."""

    def __init__(self, place: Place, fetcher: Fetcher, queue_ids: Iterable[int], left: int | None = None) -> None:
        self.watch, self.shares, self.isolation = place.watch, place.shares, place.isolation
        self.fetcher = fetcher
        self.rest = list(dict.fromkeys(queue_ids))  # not leased yet
        self.alone: list[int] = []  # to be leased one by one: somebody had their row, or a worker died there
        self.left = left  # the fence of the lease that is left to this process, for one request
        self.turns: dict[int, Turn] = {}
        self.running: Attempt | None = None
        self.lock = threading.RLock()
        self.current: Turn | None = None
        self.turn_began = 0.0  # of the turn that this thread runs now
        self.record_again = 0.0  # when the watch may try to, whom a locked row has refused

    def __str__(self) -> str:
        return f"a run of {len(self.turns)} turns"

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
            self._leave_all(QueueState.WAITING, BROKER_AWAY_SECONDS)
        except DatabaseError as error:
            log.warning("a run lost PostgreSQL", error=str(error).strip())
            self.fetcher.close()
            connection.close()
        except BaseException:
            self.fetcher.close()  # it may still read these queues, and the next run's are others
            self._leave_all(QueueState.READY)
            raise
        finally:
            metrics.BUSY_THREADS.dec()
            self.watch.remove(self)
            for turn in self.turns.values():
                self.watch.forget(turn.lease)
            tokens.pass_on([*self.rest, *self.alone])

    # Leasing

    def _lease_next(self) -> bool:
        """Lease what is next. False: there is nothing left for this process."""
        while self.rest or self.alone:
            if self.watch.stopping.is_set():
                return False
            if not self.watch.wait_until_known(KNOWN_SECONDS if self.left is None else START_SECONDS):
                time.sleep(RETRY_SECONDS)  # the others may be as far; no hurry
                return False
            taken = self._take()
            for lease in taken:
                if self.watch.know(lease):
                    with self.lock:
                        self.turns[lease.queue_id] = Turn(self, lease, 1 if self.left else settings.ENV.turn_requests)
                    metrics.TURNS.inc()
                    changed(lease.queue_id)
            if self.turns:
                return True
        return False

    def _take(self) -> list[Lease]:
        """Many together; one by one, and waiting for its row, what cannot be had so."""
        if self.left is not None or not self.rest:
            (queue_id,) = together = [self.rest.pop() if self.rest else self.alone.pop(0)]
            lease = self._asked(lambda: Lease.take(queue_id, self.watch.holder, self.left), together)
            taken = [] if lease is None else [lease]
        else:
            together, self.rest = self.rest[:MOST_TOGETHER], self.rest[MOST_TOGETHER:]
            found = self._asked(lambda: leases.take_together(together, self.watch.holder), together)
            taken, left_out = found or ([], [])
            self.alone += left_out
            together = [id_ for id_ in together if id_ not in left_out]
        metrics.TOKENS_IN_VAIN.inc(len(together) - len(taken))
        return taken

    def _asked(self, ask: Callable[[], T], together: list[int]) -> T | None:
        """What PostgreSQL says, asked twice; who was not heard has the queues passed on."""
        for again in (True, False):
            try:
                return ask()
            except (OperationalError, InterfaceError) as error:
                # Had they been taken all the same, the watch gives them back.
                log.warning("a turn could not begin", queues=together, error=str(error).strip(), again=again)
                connection.close()
                time.sleep(RETRY_SECONDS)
        tokens.pass_on(together)
        together.clear()
        return None

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
        unread = []
        for turn in tuple(self.turns.values()):
            lease = turn.lease
            if lease.last_chance and self.isolation is not None:
                self._leave_to_another_process(turn)
            elif lease.careful:
                self._begin_carefully(turn)
            elif lease.head is None and lease.waiting:
                unread.append((turn, 1))
            else:
                turn.begin([lease.head] if lease.head is not None and lease.waiting else [])
        self._claim(unread)
        self._open_sources()

    def _leave_to_another_process(self, turn: Turn) -> None:
        assert self.isolation is not None  # noqa: S101
        others, self.rest, self.alone = [*self.rest, *self.alone], [], []
        tokens.pass_on(others)  # it may take as long as its kind's time limit
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
        """Read what was claimed with the last record."""
        if claims:
            found = leases.claimed([(turn.lease, count) for turn, count in claims])
            for turn, _ in claims:
                turn.begin(found[turn.lease.queue_id])

    def _open_sources(self) -> None:
        """Ask RabbitMQ for the messages of all whose next one is awaited, at once."""
        blind = [turn for turn in self.turns.values() if turn.awaits and (turn.source is None or turn.source.error)]
        if blind:
            sources = self.fetcher.open_sources([(turn.name, turn.ahead) for turn in blind])
            for turn, source in zip(blind, sources, strict=True):
                turn.source = source

    def _run_what_came(self) -> bool:
        """Of each turn what is claimed, as far as its messages are here. Whether any got further."""
        moved = False
        for turn in tuple(self.turns.values()):
            if not turn.awaits or self.turns.get(turn.lease.queue_id) is not turn:
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
                self._end([turn])  # it is published again
            self.current = None
            self.record_if_due()
        return moved

    def _wait(self) -> None:
        """For the next message. Raises BrokerUnavailable."""
        sources = [turn.source for turn in self.turns.values() if turn.awaits and turn.source is not None]
        if sources:
            pending = any(turn.is_pending for turn in self.turns.values())
            self.fetcher.wait(sources, settings.ENV.record_after_ms / 1000 if pending else LOOK_SECONDS)
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
        turns = self.turns.values()
        if any(turn.is_due for turn in turns):
            return True
        return any(turn.is_pending for turn in turns) and not any(turn.awaits for turn in turns)

    def record_if_due(self) -> None:
        """Record, if what is over has waited for as long as it may."""
        if any(turn.is_due for turn in self.turns.values()):
            self.record()

    def record(self) -> None:
        """Write down what is over in all turns; then ack it, claim what is next, let go of what others may have."""
        with self.lock:
            wanted = [(turn, one) for turn in self.turns.values() if turn.is_pending and (one := turn.wanted())]
            began = time.monotonic()
            refused = recorder.record([one for _, one in wanted], began + settings.ENV.lease_seconds)
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
            log.error("PostgreSQL refuses a record", queue=turns[one].lease.queue_id, error=str(error).strip())
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

    def _tell_rabbitmq(self, turns: Sequence[Turn]) -> None:
        """What is not done goes back to its place; then others may know of it."""
        ready = [turn.lease.queue_id for turn in turns if turn.wants_token]
        try:
            for turn in turns:
                if turn.source is not None:
                    turn.source.close()
            if ready:
                self.fetcher.settle()
        finally:
            tokens.pass_on(ready)  # where the connection is lost, it has gone back

    def _forget(self, turn: Turn) -> None:
        self.turns.pop(turn.lease.queue_id, None)
        self.watch.forget(turn.lease)

    def _leave_all(self, then: Next, delay: float | None = None) -> None:
        """Let others have all queues. No attempt is counted."""
        with self.lock:
            turns = [turn for turn in tuple(self.turns.values()) if turn is not self.current]
            wanted = [(turn, turn.leaving(then, delay)) for turn in turns]
            with suppress(DatabaseError):
                self._drop_all(wanted, recorder.record([one for _, one in wanted], 0))
        tokens.pass_on([turn.lease.queue_id for turn, _ in wanted if turn.wants_token])

    def _drop_all(self, wanted: Sequence[tuple[Turn, Wanted]], refused: Refused) -> None:
        if refused.fenced_out:
            metrics.FENCED_OUT.inc(len(refused.fenced_out))
            log.warning("fenced out while giving queues back", queues=len(refused.fenced_out))
        for turn, _ in wanted:
            self._forget(turn)

    # What the watch does, in its own thread, while this one runs a handler.

    def look_after(self) -> None:
        """Record what a slow handler keeps waiting, let others have what has not begun; enforce the time limit."""
        running = self.running
        late = time.monotonic() - self.turn_began >= SLOW_SECONDS
        if running is None or (running.seconds < FAST_SECONDS and not late):
            return
        if not self.lock.acquire(blocking=False):
            return
        try:
            if self.running is not running:
                return
            slow = late or running.seconds >= settings.ENV.record_after_ms / 1000
            if time.monotonic() >= self.record_again and (
                (slow and (len(self.turns) > 1 or self.rest or self.alone or running.turn.claim))
                or any(turn.is_due for turn in self.turns.values())
            ):
                self._record_beside(running)
            if running.overrun >= 0 and not running.interrupted:
                running.interrupt()
            if running.overrun >= UNINTERRUPTIBLE_SECONDS:
                self._give_up(running)
        finally:
            self.lock.release()

    def _record_beside(self, running: Attempt) -> None:
        """Claim nothing but what runs, and let others have the rest. Waits for nobody's row."""
        current = cast(Turn, running.turn)
        others = [turn for turn in self.turns.values() if turn is not current]
        wanted = [(turn, turn.leaving(QueueState.READY)) for turn in others]
        if current.recording.passed or current.claim:
            current.claim.clear()
            mine = Wanted(current.recording, QueueState.DRAINING, 1, began=running.started_at)
            wanted.append((current, mine))
        rest, self.rest, self.alone = [*self.rest, *self.alone], [], []
        refused = Refused([], [], [])
        try:
            refused = recorder.record([one for _, one in wanted], 0)
        finally:
            if refused.left_out:
                self.record_again = time.monotonic() + LOCKED_SECONDS
            over = [turn for turn, one in wanted if turn is not current and one.settled and one not in refused.left_out]
            for turn in over:
                self._forget(turn)
            tokens.later(partial(self._pass_on, over, rest))

    def _pass_on(self, over: Sequence[Turn], rest: Sequence[int]) -> None:
        """In a thread of its own: RabbitMQ may hang, and every lease of the process would run out with the watch."""
        try:
            self._tell_rabbitmq(over)
        finally:
            tokens.pass_on(rest)

    def _give_up(self, running: Attempt) -> None:
        """The handler hangs where nothing interrupts it: count the attempt, let others go on, end this process."""
        turn, kind = running.turn, running.kind
        log.error("a handler cannot be interrupted; its process ends", queue=turn.lease.queue_id, kind=kind.name)
        overrun = TimeLimitExceeded(
            f"The handler overran its time limit of {kind.time_limit:g} s and could not be interrupted."
        )
        hanging = sys._current_frames().get(running.thread_id)
        given_up = running.request.cancelled
        verdict = raised(running.work, kind, given_up, overrun, running.started_at, turn.lease.now(), hanging)
        before = turn.recording.passed, list(turn.recording.outcomes)
        turn.recording.over(verdict)
        then, delay = verdict.then, verdict.delay
        if then == QueueState.DRAINING:
            then, delay = QueueState.WAITING, 0
        try:
            turn.recording.record(then, delay=delay, wait=False)
        except (OperationalError, InterfaceError) as error:
            turn.recording.passed, turn.recording.outcomes = before  # it is given up at a later look, once
            if isinstance(error, LeftOut):
                return
            raise
        except (FencedOut, DatabaseError) as error:
            # Whoever takes the queue counts it. This thread is lost all the same.
            log.warning("what was given up is not recorded", queue=turn.lease.queue_id, error=str(error).strip())
        turn.recording.closed = True
        metrics.HANDLERS_GIVEN_UP.labels(kind.name).inc()
        self.watch.retire(self)

    def renewals(self) -> Iterator[Renewal]:
        """The leases whose time has come to be renewed."""
        running = self.running
        for turn in tuple(self.turns.values()):
            lease = turn.lease
            if turn.is_over or turn.recording.closed or not turn.recording.is_to_renew():
                continue
            if running is not None and running.turn is turn:
                yield Renewal(lease.queue_id, lease.fence, running.work.seq, running.request.ask_to_stop)
            else:
                yield Renewal(lease.queue_id, lease.fence, lease.done_seq + 1, _nobody)

    def fenced_out(self, queue_id: int) -> None:
        """Called by the watch. The turn itself finds out when it records."""

    def abandon(self) -> None:
        """The process ends before the handler does: give the queues back at once, with no attempt counted."""
        with self.lock:
            if self.running is not None:
                keep_beginning(self.running.work.id, self.running.started_at)
            self.current = None
            self._leave_all(QueueState.WAITING, 0)


def _nobody() -> None:
    """Is to be told: nothing of it runs."""
