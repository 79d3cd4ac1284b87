"""`request_finished`: sent when a request's final status is committed, in the process that committed it.

At most once, and no promise over a crash: for what must not be missed, have the handler submit the next request.

Receivers run in a thread of their own, one after another, so that a slow one holds up nobody. What one raises is
logged, and changes nothing.
"""

import atexit
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any
from uuid import UUID

import orjson
import structlog
from django.db import connection
from django.dispatch import Signal

from queues.sql.statement import drop_open_transaction
from queues.states import FINAL, Status

if TYPE_CHECKING:
    from queues.event_log import LeasedQueue
    from queues.values import Outcome

MOST_UNSENT = 10_000  # a commit that comes then is dropped: receivers that are too slow for the work fill no memory
QUIET_SECONDS = 10.0  # between two lines about that
EXIT_SECONDS = 5.0  # how long a process that ends, a command for instance, waits for its receivers

log = structlog.get_logger()

request_finished = Signal()  # receivers get `finished`, a FinishedRequest; the sender is queues.models.Request


@dataclass(frozen=True, slots=True)
class FinishedRequest:
    """A request that has its final status. `error` is `{type, message, at}` or None."""

    id: UUID
    user_id: UUID
    kind: str
    version: int
    sequence: int | None
    status: Status
    attempt: int
    error: dict[str, Any] | None
    started_at: datetime | None
    finished_at: datetime | None
    result_text: str | None

    @property
    def result(self) -> Any:
        """What the handler returned; None unless it succeeded."""
        return None if self.result_text is None else orjson.loads(self.result_text)


def send_finished(lease: "LeasedQueue", outcomes: "Sequence[Outcome]") -> None:
    """Have the signal sent for those of `outcomes` that are final, and committed. Never waits."""
    if request_finished.has_listeners():
        _sending.put([
            FinishedRequest(
                work.id, lease.user_id, work.kind, work.version, work.seq, outcome.status, outcome.attempt,
                outcome.error, outcome.started_at, outcome.finished_at, outcome.result,
            )
            for outcome in outcomes
            if (work := outcome.work) is not None and outcome.status in FINAL
        ])  # fmt: skip


def send_ended(ended: "Iterable[tuple[UUID, Any]]") -> None:
    """Have the signal sent for requests that ended while no worker had them, by user; committed. Never waits."""
    if request_finished.has_listeners():
        _sending.put([
            FinishedRequest(
                row.id, user_id, row.kind, row.version, row.seq, Status(row.status), row.attempt, row.error,
                row.started_at, row.finished_at, None,
            )
            for user_id, row in ended
        ])  # fmt: skip


class Sending:
    """The thread that calls receivers; made when it is first needed."""

    def __init__(self) -> None:
        self._unsent: SimpleQueue[FinishedRequest | threading.Event] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._said = float("-inf")

    def put(self, committed: Sequence[FinishedRequest]) -> None:
        """What became final with one commit: sent whole, however much it is, or dropped whole."""
        if not committed:
            return
        if self._unsent.qsize() >= MOST_UNSENT:
            if time.monotonic() - self._said >= QUIET_SECONDS:
                self._said = time.monotonic()
                log.warning("receivers of request_finished are too slow; some are not told", unsent=MOST_UNSENT)
            return
        for finished in committed:
            self._unsent.put(finished)
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="request_finished", daemon=True)
                self._thread.start()

    def flush(self, seconds: float) -> None:
        """Wait until what was put before is sent, but no longer than that."""
        if self._thread is not None and self._thread.is_alive():
            sent = threading.Event()
            self._unsent.put(sent)
            sent.wait(seconds)

    def _run(self) -> None:
        while True:
            finished = self._unsent.get()
            if isinstance(finished, threading.Event):
                finished.set()
                continue
            try:
                self._send(finished)
            except BaseException:  # SystemExit, too: the next receivers want their turn
                log.exception("a receiver of request_finished raised", request=str(finished.id))

    def _send(self, finished: FinishedRequest) -> None:
        from queues.models import Request

        try:
            connection.close_if_unusable_or_obsolete()
            for receiver, answer in request_finished.send_robust(Request, finished=finished):
                if isinstance(answer, Exception):
                    log.error(
                        "a receiver of request_finished raised",
                        receiver=getattr(receiver, "__qualname__", repr(receiver)),
                        request=str(finished.id),
                        kind=finished.kind,
                        error=type(answer).__name__,
                    )
        finally:
            drop_open_transaction()
            if self._unsent.empty():
                connection.close()  # the next may be long in coming


_sending = Sending()
atexit.register(lambda: _sending.flush(EXIT_SECONDS))
