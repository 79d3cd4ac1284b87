"""Where in a handler an attempt failed, for its author and operators: no local variables, and of ours only what the
handler called.
"""

import traceback
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import NamedTuple

import structlog
from pydantic import ValidationError

from processing import coroutines, handlers
from project.telemetry.logs import ROW

log = structlog.get_logger()

MOST_BYTES = 16 * 1024  # of a text; the end is kept, nearest to the error
LONGEST_MESSAGE = 1000  # characters of one error's message
MOST_ERRORS = 10  # that led to one another
IN_THE_MIDDLE = "\nWhile this was handled, another error came up:\n\n"
CAUSED_BY = "\nThis was the cause of the next one:\n\n"


class Traceback(NamedTuple):
    """`text` is for operators. `frames` is for the log: without the errors' messages, which may quote the payload."""

    text: str
    frames: str


def of(error: BaseException, hanging: FrameType | None = None) -> Traceback | None:
    """The traceback of what a handler raised, and of what led to it; None: it raised nothing, we did.

    `hanging` is where its thread stands, if nothing could interrupt it. Raises nothing: the attempt is recorded,
    whatever its error is like.
    """
    try:
        return _of(error, hanging)
    except Exception:
        log.exception("a traceback could not be told", error=type(error).__name__)
        return None


def _of(error: BaseException, hanging: FrameType | None) -> Traceback | None:
    if hanging is not None:
        stack = traceback.StackSummary.extract(_below_call(traceback.walk_stack(hanging)))
        stack.reverse()
        stacks = [("", stack, error)]
    else:
        stacks = [(link, _stack(each), each) for link, each in _chain(error)]
    if not any(stack for _, stack, _ in stacks):
        return None
    return Traceback(
        _cut("".join(link + _told(stack, f"{_type(each)}: {_message(each)}") for link, stack, each in stacks)),
        _cut("".join(link + _told(stack, _type(each)) for link, stack, each in stacks)),
    )


def _chain(error: BaseException) -> list[tuple[str, BaseException]]:
    """The errors that led to one another, the first one first, each with the words that come before it."""
    found = [("", error)]
    seen = {id(error)}
    while len(found) < MOST_ERRORS:
        words, before = CAUSED_BY, error.__cause__
        if before is None and not error.__suppress_context__:
            words, before = IN_THE_MIDDLE, error.__context__
        if before is None or id(before) in seen:
            break
        found[-1] = words, error
        found.append(("", before))
        seen.add(id(before))
        error = before
    return found[::-1]


def _stack(error: BaseException) -> traceback.StackSummary:
    return traceback.StackSummary.extract(_from_call(error.__traceback__))


def _from_call(found: TracebackType | None) -> Iterator[tuple[FrameType, int]]:
    """The frames below `handlers.call`; where the error never got that far up, all of them. None of ours."""
    frames = list(traceback.walk_tb(found))
    at = [number for number, (frame, _) in enumerate(frames) if frame.f_code is handlers.call.__code__]
    if at:
        frames = frames[at[-1] + 1 :]
    yield from ((frame, line) for frame, line in frames if frame.f_globals.get("__name__") not in OURS)


def _below_call(frames: Iterator[tuple[FrameType, int]]) -> Iterator[tuple[FrameType, int]]:
    """Of a task that an async handler made, what its loop ran."""
    found = list(frames)
    ours = (handlers.call.__code__, coroutines.outcome.__code__)
    at = [number for number, (frame, _) in enumerate(found) if frame.f_code in ours]
    by_loop = [n for n, (frame, _) in enumerate(found) if frame.f_globals.get("__name__") == "asyncio.events"]
    yield from found[: (at or by_loop or [len(found)])[0]]


OURS = (
    "processing.coroutines",
    "processing.worker.attempt",
    "processing.worker.coroutines.attempt",
    "processing.worker.coroutines.recording",
    "processing.worker.turn",
    "processing.worker.token_run",
    "processing.worker.recorder",
    "processing.results",
)


def _told(stack: traceback.StackSummary, error: str) -> str:
    return f"Traceback (most recent call last):\n{''.join(stack.format())}{error}\n"


def _type(error: BaseException) -> str:
    of = type(error)
    return of.__qualname__ if of.__module__ in ("builtins", "__main__") else f"{of.__module__}.{of.__qualname__}"


def _message(error: BaseException) -> str:
    """What it says, without what was put in and without a row of the database."""
    try:
        if isinstance(error, ValidationError):
            told = error.errors(include_url=False, include_context=False, include_input=False)
            text = "; ".join(f"{'.'.join(map(str, one['loc'])) or '-'}: {one['msg']}" for one in told)
        else:
            text = ROW.sub("", str(error))
    except Exception:
        text = "It has no readable message."
    return text if len(text) <= LONGEST_MESSAGE else f"{text[:LONGEST_MESSAGE]} .."


def _cut(text: str) -> str:
    """At most MOST_BYTES, storable: the end, and how much went before it."""
    written = text.encode("utf-8", "backslashreplace").replace(b"\0", b"\\x00")
    if len(written) > MOST_BYTES:
        kept = written[-(MOST_BYTES - 100) :]
        written = f"[the first {len(written) - len(kept)} bytes are cut]\n".encode() + kept
    return written.decode("utf-8", "ignore")
