"""A run as its watch sees it, from a thread of its own, while the run's thread is in a handler."""

import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from math import inf
from typing import cast

import structlog
from django.conf import settings
from django.db import DatabaseError

from processing import metrics
from processing.broker import token_sender
from processing.broker.fetcher import Fetcher
from processing.worker import paces, recorder
from processing.worker.attempt import Attempt, give_back, give_up
from processing.worker.next_queues import NextQueues
from processing.worker.recorder import Refused, Wanted
from processing.worker.turn import Turn
from processing.worker.watchdog import ABANDON_SECONDS, GONE_SECONDS, UNINTERRUPTIBLE_SECONDS, Ahead, Renewal, Watchdog
from queues.exceptions import FencedOut
from queues.lifecycle.lease import keep_beginnings
from queues.states import QueueState
from queues.values import Next

log = structlog.get_logger()

SLOW_SECONDS = 0.25  # longer than a turn of fast handlers takes, however busy the machine is
LOCKED_SECONDS = 1.0  # a row that is locked is left alone by the watch for so long


class WatchedRun:
    """The turns of one token. Whoever changes anything holds `lock`, but for the turn that the run's thread is in."""

    def __init__(self, watch: Watchdog, fetcher: Fetcher, next_queues: NextQueues) -> None:
        self.watch = watch
        self.fetcher = fetcher
        self.next_queues = next_queues
        self.turns: dict[int, Turn] = {}
        self._running: Attempt | None = None
        self._abandoned = False
        self.lock = threading.RLock()
        self.current: Turn | None = None
        self.turn_began = 0.0  # of the turn that the run's thread is in
        self.record_again = 0.0  # when the watch may try to, whom a locked row has refused
        self.waiting_since = 0.0  # for the row of the turn that the run's thread is in

    def __str__(self) -> str:
        return f"a run of {len(self.turns)} turns"

    @property
    def running(self) -> Attempt | None:
        """The attempt that the run's thread is in."""
        return self._running

    @running.setter
    def running(self, attempt: Attempt | None) -> None:
        """Raises FencedOut: the process ends and its queues are others' by now, so nothing begins."""
        with self.lock:
            if attempt is not None and self._abandoned:
                raise FencedOut
            self._running = attempt

    def check(self) -> Ahead | None:
        """Record what a slow handler keeps waiting, let others have what has not begun; enforce the time limit.

        What is returned keeps the lock until it was recorded.
        """
        running, now = self.running, time.monotonic()
        if running is None:
            self._check_wait(now)
            return None
        late = now - self.turn_began >= SLOW_SECONDS
        if running.seconds < paces.FAST_SECONDS and not late:
            return None
        if not self.lock.acquire(blocking=False):
            return None
        ahead = None
        try:
            if self.running is not running:
                return None
            slow = late or running.seconds >= self._patience(running)
            may_record, on_pace = now >= self.record_again, not slow and self._is_on_pace(running)
            if (
                may_record
                and not on_pace
                and (
                    (slow and (len(self.turns) > 1 or self.next_queues or self._has_claimed(running)))
                    or any(turn.due_at <= now for turn in self.turns.values())
                )
            ):
                self._record_beside(running)
            self._interrupt(running)
            if running.overrun >= UNINTERRUPTIBLE_SECONDS:
                self._give_up(running)
            ahead = self._ahead(running) if may_record and on_pace else None
            return ahead
        finally:
            if ahead is None:
                self.lock.release()

    def keep_time(self) -> None:
        """Interrupt what overran its time limit."""
        running = self.running
        if running is not None and self.lock.acquire(blocking=False):
            try:
                if self.running is running:
                    self._interrupt(running)
            finally:
                self.lock.release()

    @staticmethod
    def _interrupt(running: Attempt) -> None:
        if running.overrun >= 0 and not running.interrupted:
            running.interrupt()

    @contextmanager
    def waits(self, turn: Turn) -> Iterator[None]:
        """In this block the run's thread may wait for the row of one turn; the other turns do not wait for it."""
        with self.lock:
            before, self.current, self.waiting_since = self.current, turn, time.monotonic()
        try:
            yield
        finally:
            with self.lock:
                self.current, self.waiting_since = before, 0.0

    def _check_wait(self, now: float) -> None:
        """Let others have what has not begun, if the run's thread waits for a row for too long."""
        since = self.waiting_since
        if not since or now - since < settings.ENV.record_after_ms / 1000 or now < self.record_again:
            return
        if self.lock.acquire(blocking=False):
            try:
                if self.waiting_since == since and (len(self.turns) > 1 or self.next_queues):
                    self._record_beside(None)
            finally:
                self.lock.release()

    def _patience(self, running: Attempt) -> float:
        """After so many seconds others shall not wait for it: soon, if one such handler for each would take long."""
        in_time, queues = paces.in_time_seconds(), len(self.turns) + bool(self.next_queues)
        if queues > 1 and queues * paces.of(running.kind.name, 0.0) > in_time:
            return paces.FAST_SECONDS
        return in_time if running.turn.claim else settings.ENV.record_after_ms / 1000

    @staticmethod
    def _has_claimed(running: Attempt) -> bool:
        """Whether more is claimed than what runs, be it that only PostgreSQL believes so."""
        return bool(running.turn.claim) or running.turn.recording.at_work > 1

    def _is_on_pace(self, running: Attempt) -> bool:
        """Whether it keeps nobody waiting but its own user, and is expected to be over in time."""
        turn = cast(Turn, running.turn)
        alone = len(self.turns) == 1 and not self.next_queues and not running.kind.atomic
        by_itself = turn.lease.careful or turn.recording.was_left_out
        return alone and not by_itself and paces.of(running.kind.name, inf) <= paces.in_time_seconds()

    def _ahead(self, running: Attempt) -> Ahead | None:
        """What is over is recorded while the next one runs, and one more claimed: the thread waits for neither."""
        turn = cast(Turn, running.turn)
        claim, passed = turn.claim, turn.recording.passed
        more = not claim and turn.lease.waiting > passed + 1 and not turn.has_had_its_time()
        if not more and (claim or not passed) and turn.due_at > time.monotonic():
            return None
        count = 1 + len(claim) + more
        wanted = Wanted(turn.recording, QueueState.DRAINING, count, began=running.started_at, along=count * more)

        def tell(recorded: bool) -> None:
            try:
                if not recorded and not turn.recording.was_left_out:  # whose thread records it by itself
                    self.record_again = time.monotonic() + LOCKED_SECONDS
                if not recorded or turn.lease.paused:
                    claim.clear()  # whoever is fenced out begins nothing
                elif more:
                    claim.extend(work for work in turn.lease.came_along if work.seq == running.work.seq + 1)
                turn.tell_of_permits()
            finally:
                self.lock.release()

        return Ahead(wanted, tell)

    def _record_beside(self, running: Attempt | None) -> None:
        """Claim nothing but what runs, and let others have the rest. Waits for nobody's row."""
        current = self.current if running is None else cast(Turn, running.turn)
        others = [turn for turn in self.turns.values() if turn is not current]
        wanted = [(turn, turn.leaving(QueueState.READY)) for turn in others]
        if running is not None and current is not None and (current.recording.passed or self._has_claimed(running)):
            current.claim.clear()
            mine = Wanted(current.recording, QueueState.DRAINING, 1, began=running.started_at)
            wanted.append((current, mine))
        rest = self.next_queues.give_up()
        refused = Refused([], [], [])
        try:
            refused = recorder.record([one for _, one in wanted], 0)
        finally:
            if any(refused):
                self.record_again = time.monotonic() + LOCKED_SECONDS
            over = [turn for turn, one in wanted if turn is not current and one.settled and one not in refused.left_out]
            for turn in over:
                self._forget(turn)
            token_sender.later(partial(self._pass_on, over, rest))

    def _pass_on(self, over: Sequence[Turn], rest: Sequence[int]) -> None:
        """In a thread of its own: RabbitMQ may hang, and every lease of the process would run out with the watch."""
        try:
            self._tell_rabbitmq(over)
        finally:
            token_sender.pass_on(rest)

    def _give_up(self, running: Attempt) -> None:
        """The handler hangs where nothing interrupts it: count the attempt, let others go on, end this process."""
        hanging = sys._current_frames().get(running.thread_id)
        overran = f"overran its time limit of {running.kind.time_limit:g} s"
        if give_up(running, running.turn.recording, overran, hanging):
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
        """The process ends before the handler does: give the queues back, with no attempt counted."""
        if not self.lock.acquire(timeout=ABANDON_SECONDS):
            log.warning("a run waits for PostgreSQL; the dispatcher will find its queues", queues=list(self.turns))
            return
        try:
            if self.running is not None:
                keep_beginnings([(self.running.work.id, self.running.started_at)])
            self.current, self._abandoned = None, True
            self._leave_all(QueueState.WAITING, GONE_SECONDS)
        finally:
            self.lock.release()

    # Letting go of queues

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
            token_sender.pass_on(ready)  # where the connection is lost, it has gone back

    def _forget(self, turn: Turn) -> None:
        self.turns.pop(turn.lease.queue_id, None)
        self.watch.forget(turn.lease)

    def _leave_all(self, then: Next, delay: float | None = None) -> None:
        """Let others have all queues. No attempt is counted."""
        with self.lock:
            turns = [turn for turn in tuple(self.turns.values()) if turn is not self.current]
            wanted = [(turn, turn.leaving(then, delay)) for turn in turns if not turn.is_over]
            with suppress(DatabaseError):
                self._drop_all(wanted, give_back([one for _, one in wanted]))
        token_sender.pass_on([turn.lease.queue_id for turn in turns if turn.wants_token])

    def _drop_all(self, wanted: Sequence[tuple[Turn, Wanted]], refused: Refused) -> None:
        if refused.fenced_out:
            metrics.FENCED_OUT.inc(len(refused.fenced_out))
            log.warning("fenced out while giving queues back", queues=len(refused.fenced_out))
        for turn, _ in wanted:
            self._forget(turn)


def _nobody() -> None:
    """Is to be told: nothing of it runs."""
