"""One thread that looks after all turns of a worker process: it renews leases, records what a slow handler keeps
waiting, enforces time limits, and holds the lock whose loss tells the others that this process is dead.
"""

import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import NamedTuple, Protocol, cast

import structlog
from django.db import DEFAULT_DB_ALIAS, InterfaceError, OperationalError, connection, connections
from django.db import Error as DatabaseError

from processing.broker import tokens
from processing.worker.heartbeat import Heartbeat
from processing.worker.recorder import Refused, Wanted, record
from project.postgresql.base import DatabaseWrapper
from project.postgresql.limits import WATCH
from project.redis import leave_probing_to_others
from queues.exceptions import FencedOut
from queues.lifecycle import outbox
from queues.lifecycle.lease import Lease, hold_process_lock, renew
from queues.lifecycle.reconcile import reconcile
from queues.limits.deployment import declare

log = structlog.get_logger()

TICK_SECONDS = 0.01
CHECK_LEASES_SECONDS = 0.1  # how often it looks whose time has come
RECONCILE_SECONDS = 1.0
ABANDON_SECONDS = 0.5  # the process is to end: who records just now has so long to come to an end with it
GONE_SECONDS = 1.0  # the process has ended after that, and with it the handlers that run beside whoever goes on
UNINTERRUPTIBLE_SECONDS = 5.0  # a handler that goes on for so long after its time limit is given up with its process
LOCK_SECONDS = 0.25  # sooner than a dispatcher believes that a process is dead whose lock it missed once


class Renewal(NamedTuple):
    """A lease that is to be renewed, what runs under it, and whom to tell that it is to be cancelled."""

    queue_id: int
    fence: int
    seq: int
    ask_to_stop: Callable[[], None]


class Ahead(NamedTuple):
    """What is to be recorded while a handler runs, and who is told whether it was, whatever happens."""

    wanted: Wanted
    tell: Callable[[bool], None]


class Watched(Protocol):
    """What goes on in another thread: the run of a token, a process of one request."""

    def check(self) -> Ahead | None:
        """Called every few milliseconds; what it returns is recorded together with what the others do.

        Raises FencedOut: there is nothing to look after any more.
        """

    def keep_time(self) -> None:
        """Enforce its time limits. Called instead while PostgreSQL is away; needs nothing of it."""

    def renewals(self) -> Iterable[Renewal]:
        """Its leases whose time has come to be renewed."""

    def fenced_out(self, queue_id: int) -> None:
        """The lease that was to be renewed is somebody else's by now."""

    def abandon(self) -> None:
        """The process ends now."""


class Watchdog:
    """The process's watchman. `worker_id` names the process in the queues it leases: the key of its advisory lock."""

    def __init__(self) -> None:
        self.worker_id = random.SystemRandom().randrange(1, 2**31)
        self.stopping = threading.Event()
        self._locked = threading.Event()
        self._turns: set[Watched] = set()
        self._last: set[Watched] = set()  # what others hand over to
        self._known: set[tuple[int, int]] = set()  # the leases of this process: queue and fence
        self._send_tokens: Callable[[list[int]], None] = lambda _: None
        self._busy = threading.Event()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._end_process = threading.Event()
        self._beat: Heartbeat | None = None
        self._renewed = 0.0

    def start(
        self,
        end_process: threading.Event,
        beat: Heartbeat | None = None,
        send_tokens: Callable[[list[int]], None] | None = None,
    ) -> None:
        """Begin to watch, and give the process's sign of life.

        `end_process` is set when a handler hangs so that only the process's end helps. `send_tokens` gets the queues
        that were given back; it must not wait.
        """
        self._send_tokens = send_tokens or self._send_tokens
        self._end_process, self._beat = end_process, beat
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._thread.start()

    def wait_until_known(self, timeout: float) -> bool:
        """Wait until the database knows that this process lives; without that its leases would be taken away."""
        return self._locked.wait(timeout)

    @property
    def takes_turns(self) -> bool:
        """Whether the process goes on, and the database knows that it lives."""
        return self._locked.is_set() and not self.stopping.is_set()

    def add(self, turn: Watched, *, last: bool = False) -> None:
        """Look after this from now on. `last`: while the process ends, others may still hand over to it."""
        if last:
            self._last.add(turn)
        self._turns.add(turn)
        self._busy.set()

    def remove(self, turn: Watched) -> None:
        """It is over."""
        self._turns.discard(turn)

    def know(self, lease: Lease) -> bool:
        """This process has it from now on. False: its answer came too late, so it counts as refused."""
        self._known.add((lease.queue_id, lease.fence))
        if lease.came_in_time:  # asked after the entry: `reconcile` counts on that
            return True
        self.forget(lease)
        log.warning("a lease came too late", queue=lease.queue_id, fence=lease.fence)
        return False

    def forget(self, lease: Lease) -> None:
        """This process is done with it. If PostgreSQL does not know, it is given back."""
        self._known.discard((lease.queue_id, lease.fence))

    def retire(self, turn: Watched) -> None:
        """A turn was given up with its thread: end the process, once the other handlers have ended."""
        self.remove(turn)
        self.end_process()

    def end_process(self) -> None:
        """Only the process's end helps: no new turn, and the other handlers have their grace time."""
        self._end_process.set()

    def stop(self, grace: float) -> bool:
        """Let running handlers finish for `grace` seconds, then give their queues back. Whether all had finished."""
        self.stopping.set()
        deadline = time.monotonic() + grace
        while self._turns and time.monotonic() < deadline:
            time.sleep(TICK_SECONDS)
        unfinished = self._abandon_all()
        self._ended.set()
        self._busy.set()
        if self._thread and not unfinished:  # what was given back may run elsewhere soon: no time to lose
            self._thread.join(timeout=5)
        return not unfinished

    def _abandon_all(self) -> set[Watched]:
        """All that have not finished, and what begins meanwhile."""
        abandoned: set[Watched] = set()
        while left := [turn for turn in tuple(self._turns) if turn not in abandoned]:
            turn = min(left, key=self._last.__contains__)
            abandoned.add(turn)
            try:
                turn.abandon()
            except Exception as error:  # whatever it is: the others' queues are to be given back, too
                log.warning("a run could not give its queues back", of=str(turn), error=str(error).strip())
        return abandoned

    def _run(self) -> None:
        """Watchdog until the end. A process without its watch would have every lease taken away: it ends too."""
        try:
            self._watch()
        except BaseException:
            log.exception("the watch has a defect; the process ends")
            self._end_process.set()
        finally:
            connection.close()

    def _watch(self) -> None:
        wrapper = cast("DatabaseWrapper", connections[DEFAULT_DB_ALIAS])
        wrapper.wanted, wrapper.keeps_session = WATCH, True
        leave_probing_to_others()  # it records for several threads at once
        checked = reconciled = 0.0
        while not self._ended.is_set():
            self._busy.wait(LOCK_SECONDS)
            if self._beat is not None:
                self._beat.give(self._locked.is_set())
            try:
                if time.monotonic() - checked > LOCK_SECONDS:
                    self._hold_lock()
                    checked = time.monotonic()
                self._check_all()
                if time.monotonic() - reconciled > RECONCILE_SECONDS:
                    self._reconcile()
                    reconciled = time.monotonic()
            except DatabaseError as error:
                self._locked.clear()
                log.warning("the watch lost PostgreSQL", error=str(error).strip())
                connection.close()
                checked = 0.0
                for turn in tuple(self._turns):
                    turn.keep_time()
                self._ended.wait(0.1)
            self._busy.clear()
            if self._turns:  # looked at after the clearing: `add` may come in between
                self._busy.set()
            self._ended.wait(TICK_SECONDS)

    def _hold_lock(self) -> None:
        """Hold the lock, or take it (again): it goes with its connection."""
        if self._locked.is_set():
            tokens.learn(outbox.token_generation())
        elif hold_process_lock(self.worker_id):
            tokens.learn(outbox.token_generation())  # before anybody sends a token
            declare()  # before anything runs
            self._locked.set()

    def _check_all(self) -> None:
        """Look after each; record what they want recorded, and renew the leases whose time has come, in one statement
        each.
        """
        wanted: list[tuple[Watched, Renewal]] = []
        renewing = time.monotonic() - self._renewed >= CHECK_LEASES_SECONDS
        if renewing:
            self._renewed = time.monotonic()
        with recording_ahead() as ahead:
            self._check_each(wanted, renewing, ahead)
        if wanted:
            self._renew(wanted)

    def _check_each(self, wanted: list[tuple[Watched, Renewal]], renewing: bool, ahead: list[Ahead]) -> None:
        for turn in tuple(self._turns):
            try:
                if one := turn.check():
                    ahead.append(one)
                if renewing:
                    wanted.extend((turn, renewal) for renewal in turn.renewals())
            except FencedOut:
                log.warning("the watch was fenced out", of=str(turn))
                self.remove(turn)
            except (OperationalError, InterfaceError):
                raise
            except Exception:
                # Its lease runs out, and the others' turns go on.
                log.exception("a turn cannot be looked after", of=str(turn))
                self.remove(turn)

    def _renew(self, wanted: Sequence[tuple[Watched, Renewal]]) -> None:
        renewed = renew([renewal[:3] for _, renewal in wanted])
        for turn, renewal in wanted:
            if renewal.queue_id not in renewed:
                turn.fenced_out(renewal.queue_id)
            elif renewed[renewal.queue_id]:
                renewal.ask_to_stop()

    def _reconcile(self) -> None:
        """Give back what is leased in this process's name and it does not know: an answer was lost, or came late."""
        given_back = reconcile(self.worker_id, lambda: self._known)
        if given_back:
            log.warning("leases that nobody here knew were given back", queues=given_back)
            self._send_tokens(given_back)


@contextmanager
def recording_ahead() -> Iterator[list[Ahead]]:
    """What the block puts into the list is recorded at its end, together. Raises OperationalError, InterfaceError."""
    ahead: list[Ahead] = []
    refused = None
    with ExitStack() as told:
        try:
            yield ahead
            if ahead:
                refused = record([one.wanted for one in ahead], 0)
        except (OperationalError, InterfaceError):
            raise
        except Exception:  # each thread records by itself, and meets what is its own
            log.exception("what handlers returned cannot be recorded while others run")
        finally:
            for one in ahead:
                told.callback(one.tell, refused is not None and not _names(refused, one.wanted))


def _names(refused: Refused, wanted: Wanted) -> bool:
    faulty = [one for one, _ in refused.faulty]
    return any(wanted is one for one in (*refused.fenced_out, *refused.left_out, *faulty))
