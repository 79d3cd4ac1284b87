"""`request_finished`: sent in a worker when what a request came to is committed.

At most once, and no promise over a crash: for what must not be missed, have the handler submit the next request. Not
sent for what ends without a worker: cancelled, purged, skipped or expired while it waited, or failed with its worker.

Receivers run in a thread of their own, one after another, so that a slow one holds up no turn. What one raises is
logged, and changes nothing.
"""

import threading
import time
from collections.abc import Sequence
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
    from queues.lifecycle.lease import Lease
    from queues.values import Outcome

MOST_UNSENT = 10_000  # more are dropped: receivers that are too slow for the work fill no memory
QUIET_SECONDS = 10.0  # between two lines about that

log = structlog.get_logger()

request_finished = Signal()  # receivers get `finished`, a FinishedRequest; the sender is queues.models.Request


@dataclass(frozen=True, slots=True)
class FinishedRequest:
    """A request that has its final status. `error` is `{type, message, at}` or None."""

    id: UUID
    user_id: UUID
    kind: str
    version: int
    sequence: int
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


def send_finished(lease: "Lease", outcomes: "Sequence[Outcome]") -> None:
    """Have the signal sent for those of `outcomes` that are final, and committed. Never waits."""
    if request_finished.has_listeners():
        for outcome in outcomes:
            if outcome.work is not None and outcome.status in FINAL:
                _sending.put(_finished(lease, outcome))


def _finished(lease: "Lease", outcome: "Outcome") -> FinishedRequest:
    work = outcome.work
    assert work is not None  # noqa: S101  (for the type checker; the caller asked)
    return FinishedRequest(
        work.id, lease.user_id, work.kind, work.version, work.seq, outcome.status, outcome.attempt, outcome.error,
        outcome.started_at, outcome.finished_at, outcome.result,
    )  # fmt: skip


class Sending:
    """The thread that calls receivers; made when it is first needed."""

    def __init__(self) -> None:
        self._unsent: SimpleQueue[FinishedRequest] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._said = float("-inf")

    def put(self, finished: FinishedRequest) -> None:
        if self._unsent.qsize() >= MOST_UNSENT:
            if time.monotonic() - self._said >= QUIET_SECONDS:
                self._said = time.monotonic()
                log.warning("receivers of request_finished are too slow; some are not told", unsent=MOST_UNSENT)
            return
        self._unsent.put(finished)
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="request_finished", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while True:
            finished = self._unsent.get()
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
