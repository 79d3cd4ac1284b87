"""One attempt whose handler is an `async def`: it waits on the process's event loop, and holds no thread."""

import asyncio
import time
from datetime import datetime
from types import FrameType
from typing import Any

from processing.coroutines import outcome
from processing.handlers import Function, HandlerRequest, TimeLimitExceeded
from processing.results import InvalidResult, as_json
from processing.worker.attempt import request_fields, traced
from processing.worker.outcomes import Ending, raised, returned
from processing.worker.recorder import Recording
from project.telemetry.logs import at_work
from queues import event_log
from queues.exceptions import FencedOut
from queues.kinds import Kind
from queues.lifecycle.lease import Lease
from queues.states import Status
from queues.values import Work


class CoroutineAttempt:
    """Runs under the lease, which is its own from now on: its request is the head, and alone claimed."""

    def __init__(
        self, lease: Lease, work: Work, kind: Kind, function: Function, value: Any, started_at: datetime
    ) -> None:
        self.lease, self.work, self.kind = lease, work, kind
        self.function, self.value, self.started_at = function, value, started_at
        self.request = HandlerRequest(**request_fields(lease, work))
        self.recording = Recording(lease)
        self.began = 0.0  # on the monotonic clock; 0: not yet
        self.ending: Ending | None = None  # it is over
        self._clock: asyncio.Timeout | None = None
        self.noted = False  # what it came to is in its recording
        self.record_again = 0.0  # when one that could not be recorded is tried again

    @property
    def overrun(self) -> float:
        """Seconds beyond its kind's time limit; negative before."""
        return time.monotonic() - self.began - self.kind.time_limit if self.began else -self.kind.time_limit

    @property
    def interrupted(self) -> bool:
        """Whether its time was over, and the loop has told it so."""
        return self._clock is not None and self._clock.expired()

    @property
    def submits(self) -> bool:
        """Whether other requests are to be accepted with its record."""
        ended = self.ending.outcome if self.ending else None
        return bool(self.request.next_requests) and ended is not None and ended.status == Status.SUCCEEDED

    async def run(self) -> None:
        """In the loop: call the handler, within its time. Raises nothing."""
        at_work.set(self.request.described)
        self.began = time.monotonic()
        try:
            if self.recording.closed:
                raise FencedOut  # before it began; nobody asks what came of it
            with traced(self.request, self.work) as ended:
                ending = await self._run()
                ended(ending.outcome)
        except BaseException as error:  # a defect of ours or of the tracer's: its user goes on all the same
            ending = self.failed(error)
        self.ending = ending

    async def _run(self) -> Ending:
        event_log.started(self.lease, self.work)
        async with asyncio.timeout(self.kind.time_limit) as self._clock:
            result, error = await outcome(self._handle())
        if self.interrupted:
            where, error = error, TimeLimitExceeded()
            error.__traceback__ = where.__traceback__ if where is not None else None  # tell where it stood
        if error is None:
            try:
                text = as_json(result)
                return returned(self.work, self.request, text, self.started_at, self.lease.now())
            except InvalidResult as invalid:
                error = invalid
        return self.failed(error)

    async def _handle(self) -> Any:
        return await self.function(self.request, self.value)

    def failed(self, error: BaseException, hanging: FrameType | None = None) -> Ending:
        """It ended with that; or it stands there, and nothing ends it."""
        given_up = self.request.cancelled
        return raised(self.work, self.kind, given_up, error, self.started_at, self.lease.now(), hanging)
