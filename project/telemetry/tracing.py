"""Where spans begin and end: hooks for who wants to trace. Without TRACING each costs a look at `tracer`, no more.

What is told is project/telemetry/spans.py: OpenTelemetry's packages are imported there alone.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol
from uuid import UUID

FLUSH_SECONDS = 2.0  # how long a process that ends waits for its last spans to be sent


class LeftToOthers(Exception):
    """Raised in the span of a submission that was not accepted here, and is accepted or refused elsewhere: no span."""


class Ended(Protocol):
    """Told how an attempt ended: its outcome, and the type of its error if it had one."""

    def __call__(self, outcome: str, error: str | None) -> None: ...


class Tracer(Protocol):
    def caller(self, headers: Mapping[str, str]) -> AbstractContextManager[object]:
        """What is submitted meanwhile, in this thread, belongs to the trace that the headers name."""

    def submit(
        self, kind: str, request_id: UUID | None, count: int, headers: Mapping[str, str] | None = None
    ) -> AbstractContextManager[str]:
        """A span around accepting one request, or a batch; its traceparent, to be stored with each.

        It goes on with the trace that the `headers` name; without them, with the thread's.
        """

    def attempt(
        self, kind: str, traceparent: str | None, attributes: Mapping[str, str | int]
    ) -> AbstractContextManager[Ended]:
        """A span around one attempt, below and linked to the one that accepted it. Spans of its handler hang below."""

    def current(self) -> dict[str, str]:
        """`trace_id` and `span_id` of the span that the thread is in, for its log."""

    def flush(self, seconds: float) -> None:
        """Send what has ended; never raises."""


tracer: Tracer | None = None


def trace_id(traceparent: str | None) -> dict[str, str]:
    """For a line of the log about a request: the trace that it belongs to, if any."""
    return {"trace_id": traceparent[3:35]} if traceparent else {}


def flush() -> None:
    """Send the last spans of a process that is about to end."""
    if tracer is not None:
        tracer.flush(FLUSH_SECONDS)


def in_log(event: Any) -> None:
    """Add the ids of the span that the thread is in, where the line does not name a trace itself."""
    if tracer is not None and "trace_id" not in event:
        event.update(tracer.current())
