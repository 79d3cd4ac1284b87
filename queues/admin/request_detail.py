"""A request's page for operators: what happened to it and when, its payload, result and error as they are."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from queues.models import Attempt, Request
from queues.states import AttemptOutcome, Status

LONGEST_TEXT = 20_000  # characters of a payload, result or error on a page
GOOD, BAD, NOW, PLAIN = "good", "bad", "now", ""
SAID = {
    AttemptOutcome.SUCCEEDED: ("succeeded", GOOD),
    AttemptOutcome.FAILED: ("failed", BAD),
    AttemptOutcome.REJECTED: ("was rejected by its handler", BAD),
    AttemptOutcome.POSTPONED: ("was postponed by its handler", PLAIN),
    AttemptOutcome.TIMED_OUT: ("ran longer than its kind may", BAD),
    AttemptOutcome.CANCELLED: ("ended, as its owner had cancelled", PLAIN),
    AttemptOutcome.LOST: ("ended with its worker", BAD),
}
ENDED = {
    Status.SUCCEEDED: ("Succeeded", GOOD),
    Status.FAILED: ("Failed", BAD),
    Status.CANCELLED: ("Cancelled", PLAIN),
    Status.EXPIRED: ("Expired before it began", BAD),
}


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to it. `seconds` is how long it took, where it took time."""

    at: datetime | None
    what: str
    how: str = PLAIN
    seconds: float | None = None
    error: str = ""
    traceback: str = ""


@dataclass(frozen=True, slots=True)
class Page:
    request: Request
    status: Status
    waited: float | None  # seconds until its first attempt
    ran: float | None  # seconds from there to its end
    events: list[Event]
    payload: str
    result: str
    error: str


def page_of(request: Any) -> Page:
    """That request's page; it was read by `representation.shape.as_text`, with its queue."""
    status = request.status_now
    began = request.started
    could = max(request.created_at, request.not_before or request.created_at)
    return Page(
        request,
        status,
        None if began is None else (began - could).total_seconds(),
        None if began is None or request.finished_at is None else (request.finished_at - began).total_seconds(),
        list(_events(request, status, began)),
        pretty(request.payload_text),
        pretty(request.result_text),
        pretty(request.error_text),
    )


def _events(request: Any, status: Status, began: datetime | None) -> Iterator[Event]:
    yield Event(request.created_at, "Accepted" if request.retry_of_id is None else "Accepted, as a retry of another")
    if request.not_before and request.not_before > request.created_at:
        yield Event(request.not_before, "Due" if status == Status.SCHEDULED else "Was due")
    for attempt in request.attempts.order_by("number"):
        yield _attempt(attempt)
    if request.cancel_asked_at:
        yield Event(request.cancel_asked_at, "Its owner asked its handler to stop")
    if status == Status.RUNNING:
        yield Event(began, f"Attempt {request.attempt_now} runs", NOW)
    elif status == Status.RETRYING:
        yield Event(request.queue.wake_at, "The next attempt is due", NOW)
    elif status == Status.BLOCKED:
        yield Event(request.queue.state_since, "Blocks its queue until it is retried, skipped or cancelled", BAD)
    elif status in ENDED:
        what, how = ENDED[status]
        yield Event(request.finished_at, what, how)


def _attempt(attempt: Attempt) -> Event:
    what, how = SAID[AttemptOutcome(attempt.outcome)]
    error = f"{attempt.error['type']}: {attempt.error['message']}" if attempt.error else ""
    took = (attempt.finished_at - attempt.started_at).total_seconds()
    traceback = cut(attempt.traceback or "")
    return Event(attempt.started_at, f"Attempt {attempt.number} {what}", how, took, cut(error), traceback)


PART = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\],:]|[^\s{}\[\],:"]+')


def pretty(text: str | None) -> str:
    """JSON text with its members on lines of their own, every value to the letter; as it is where it is large."""
    if text is None or len(text) > LONGEST_TEXT:
        return cut(text or "")
    lines, deep, before = [""], 0, ""
    for part in PART.findall(text):
        if part in "}]":
            deep -= 1
            if before not in "{[":
                lines.append("  " * deep)
        elif before and before in "{[,":
            lines.append("  " * deep)
        lines[-1] += {":": ": "}.get(part, part)
        deep += part in "{["
        before = part
    return cut("\n".join(lines))


def cut(text: str) -> str:
    """At most LONGEST_TEXT characters, and then how many there are."""
    return text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]} .. ({len(text)} characters)"
