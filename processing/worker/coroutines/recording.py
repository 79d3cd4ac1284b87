"""What came of `async def` handlers is written down in one thread, and kept until it is: PostgreSQL may be away."""

import threading
import time
from collections.abc import Callable, Sequence

import structlog
from django.db import InterfaceError, OperationalError, connection

from processing import metrics
from processing.worker import recorder
from processing.worker.coroutines.attempt import CoroutineAttempt
from processing.worker.recorder import AGAIN_SECONDS, LeftOut, Refused, Wanted
from processing.worker.watchdog import Watchdog
from queues.exceptions import FencedOut
from queues.notify.changes import changed
from queues.notify.hints import work_waits
from queues.sql.statement import drop_open_transaction, left_out
from queues.states import QueueState

log = structlog.get_logger()

REST_SECONDS = 60.0  # a recorder with nothing to do keeps its connection for so long
MOST_TOGETHER = 64  # are recorded with one statement
MOST_LOCKED = 8  # each waits for its row by itself: the others are recorded within a second all the same


class OutcomeRecorder:
    """What is over meanwhile shares the next statement; who is alone waits for nobody.

    `leave` gets those that are done with, and the queues of them that are ready for a token.
    """

    def __init__(self, watch: Watchdog, leave: Callable[[Sequence[CoroutineAttempt], Sequence[int]], None]) -> None:
        self._watch, self._leave = watch, leave
        self._over: list[CoroutineAttempt] = []  # and not recorded yet
        self._changed = threading.Condition()
        self._recording = threading.Lock()  # held by who records
        self._thread: threading.Thread | None = None

    def add(self, attempt: CoroutineAttempt) -> None:
        """It is over."""
        with self._changed:
            self._over.append(attempt)
            self._changed.notify()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
                try:
                    self._thread.start()
                except RuntimeError:  # the machine gives no more
                    self._fail()

    def record_due(self, timeout: float = -1) -> bool:
        """Record some of what is over. False: nothing is due, or somebody has been recording for `timeout` seconds."""
        if not self._recording.acquire(timeout=timeout):
            return False
        try:
            with self._changed:
                due = self._due()
            again = self._record(due)
            for attempt in again:
                attempt.record_again = time.monotonic() + AGAIN_SECONDS
            with self._changed:
                self._over = [attempt for attempt in self._over if attempt not in due] + list(again)
            return bool(due)
        finally:
            self._recording.release()

    def _run(self) -> None:
        try:
            while self._wait():
                self.record_due()
        except BaseException:
            self._fail()
        finally:
            connection.close()

    def _fail(self) -> None:
        """A process in which nobody records would have its users' requests run again: it ends."""
        log.exception("nobody records what came of async handlers; the process ends")
        self._thread = None  # what is over until then tries once more
        self._watch.end_process()

    def _wait(self) -> bool:
        """Until something is due. False: this thread ends, for there has been nothing for long."""
        with self._changed:
            while not self._due():
                if not self._changed.wait(AGAIN_SECONDS if self._over else REST_SECONDS) and not self._over:
                    self._thread = None  # the next one has a thread and a connection of its own made
                    return False
        return True

    def _due(self) -> list[CoroutineAttempt]:
        now = time.monotonic()
        due = [attempt for attempt in self._over if attempt.record_again <= now]
        locked = [attempt for attempt in due if attempt.recording.was_left_out]
        return [attempt for attempt in due if attempt not in locked][:MOST_TOGETHER] + locked[:MOST_LOCKED]

    def _record(self, due: Sequence[CoroutineAttempt]) -> Sequence[CoroutineAttempt]:
        """Write down what came of these; which of them are to be tried again."""
        try:
            return self._record_together(due)
        except (OperationalError, InterfaceError) as error:
            log.warning("outcomes of async handlers wait for PostgreSQL", queues=len(due), error=str(error).strip())
            connection.close()
            return due
        except Exception:
            if len(due) > 1:
                return [again for attempt in due for again in self._record([attempt])]
            log.exception("what came of an async handler cannot be recorded", queue=due[0].lease.queue_id)
            self._leave(due, [])
            return []

    def _record_together(self, due: Sequence[CoroutineAttempt]) -> Sequence[CoroutineAttempt]:
        wanted: dict[Wanted, CoroutineAttempt] = {}
        again: list[CoroutineAttempt] = []
        for attempt in due:
            if attempt.recording.closed:
                continue  # it was given up
            try:
                wanted[_wanted(attempt)] = attempt
            except (OperationalError, InterfaceError):  # its row is locked, or PostgreSQL is away
                again.append(attempt)
            except FencedOut:
                _say_fenced_out(attempt)
        refused = recorder.record(list(wanted), time.monotonic(), shared=True)
        again += [wanted[one] for one in refused.left_out]
        ready = _recorded(wanted, refused)
        self._leave([attempt for attempt in due if attempt not in again], ready)
        return again


def _wanted(attempt: CoroutineAttempt) -> Wanted:
    """How its queue goes on: others come first.

    Raises FencedOut, OperationalError and InterfaceError; LeftOut: somebody has a row locked.
    """
    assert attempt.ending is not None  # noqa: S101  (it is over)
    if not attempt.noted:
        if attempt.submits:
            _accept_next(attempt)
        else:
            attempt.recording.over(attempt.ending)
        attempt.noted = True
    then, delay = attempt.ending.then, attempt.ending.delay
    return Wanted(attempt.recording, QueueState.READY if then == QueueState.DRAINING else then, delay=delay)


def _accept_next(attempt: CoroutineAttempt) -> None:
    """Accept what the handler submitted in the transaction that records it: exactly once."""
    assert attempt.ending is not None  # noqa: S101  (it is over)
    recording = attempt.recording
    recording.make_sure()
    if recording.doubtful and recording.doubtful[-1].seq <= recording.lease.done_seq:
        return  # it was committed, and only the answer was lost
    try:
        with recording.atomically():
            attempt.request.accept_next()
            recording.over(attempt.ending)
    except FencedOut:
        raise
    except Exception as error:
        drop_open_transaction()
        if left_out(error):
            recording.unsure, recording.doubtful = False, ()  # nothing was written, for sure
            recording.was_left_out = True
            raise LeftOut(str(error)) from error
        if isinstance(error, OperationalError | InterfaceError):
            raise
        attempt.ending = attempt.failed(error)
        recording.over(attempt.ending)


def _recorded(wanted: dict[Wanted, CoroutineAttempt], refused: Refused) -> list[int]:
    """Tell what became of these records; which queues are ready for a token."""
    for one in refused.fenced_out:
        _say_fenced_out(wanted.pop(one))
    for one, error in refused.faulty:
        log.error("a record cannot be kept", queue=wanted.pop(one).lease.queue_id, error=str(error).strip())
    for one in refused.left_out:
        wanted.pop(one)
    if any(attempt.work.limited for attempt in wanted.values()):
        work_waits()  # there may be a permit for others now
    for attempt in wanted.values():
        if attempt.work.limited:
            changed(attempt.lease.queue_id)
    leases = [attempt.lease for attempt in wanted.values()]
    return [lease.queue_id for lease in leases if lease.state == QueueState.READY and not lease.paused]


def _say_fenced_out(attempt: CoroutineAttempt) -> None:
    metrics.FENCED_OUT.inc()
    log.warning("fenced out: somebody else has the queue, nothing was recorded", queue=attempt.lease.queue_id)
