"""One log for everything: lines on stderr, JSON or for a terminal, structlog's and the standard library's alike.

No payload and no token is logged by this project; a traceback shows no local variables, and what PostgreSQL says of a
refused row is cut off.
"""

import logging
import logging.config
import re
import sys
import threading
import time
import traceback
from collections.abc import Callable, MutableMapping
from contextvars import ContextVar
from typing import Any

import orjson
import structlog
from structlog.tracebacks import ExceptionDictTransformer
from structlog.typing import Processor

from project.telemetry import tracing

ROW = re.compile(r"\n(DETAIL|CONTEXT):.*", re.DOTALL)  # psycopg: "Failing row contains (..)", payload and all
QUIET = {
    "django.request": "ERROR",  # a 404 is nothing to tell of, and a crash is told by project.web.middleware
    "pika": "CRITICAL",  # five lines and a traceback for each lost connection, which our own one line tells
    "dramatiq": "WARNING",
}


# What the thread is at work on, to be told in each line that is logged meanwhile, whoever logs it.
at_work: ContextVar[Callable[[], dict[str, Any]] | None] = ContextVar("at_work", default=None)


def configure(wanted: dict[str, str]) -> None:
    """Set up both kinds of logging: `level`, and `style`: json or console. Django calls it with settings.LOGGING."""
    level, style = wanted["level"], wanted["style"]
    structlog.configure(
        processors=[*_common(), *_render(style)],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level]),
        logger_factory=lambda *_: Stderr(),
        cache_logger_on_first_use=True,
    )
    quiet: dict[str, str] = {} if level == "DEBUG" else QUIET
    django = ("django", "django.server")  # Django gives these handlers of their own
    granian = ("_granian", "granian.access")
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {"line": {"()": "project.telemetry.logs.formatter", "style": style}},
            "handlers": {"stderr": {"class": "project.telemetry.logs.StderrHandler", "formatter": "line"}},
            "root": {"handlers": ["stderr"], "level": level},
            "loggers": {
                **{name: {"handlers": [], "propagate": True} for name in (*django, *granian)},
                **{name: {"level": at_least} for name, at_least in quiet.items()},
                "granian.access": {"handlers": [], "propagate": True, "level": level},
            },
        }
    )


def formatter(style: str) -> logging.Formatter:
    """Lines of the standard library's logging in the same shape; also for granian's --log-config."""
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[structlog.stdlib.add_logger_name, *_common()],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *_render(style)],
    )


def _common() -> list[Processor]:
    return [
        structlog.contextvars.merge_contextvars,
        _at_work,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
    ]


def _at_work(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Say what the thread is at work on; the line's own words come first."""
    tell = at_work.get()
    for name, value in tell().items() if tell else ():
        event.setdefault(name, value)
    tracing.in_log(event)
    return event


def _render(style: str) -> list[Processor]:
    if style == "console":
        colours = sys.stderr.isatty()
        return [
            _without_rows,
            _as_exception,
            structlog.dev.ConsoleRenderer(colors=colours, timestamp_key="at", exception_formatter=_plain_traceback),
        ]
    transformer = ExceptionDictTransformer(show_locals=False)
    return [structlog.processors.ExceptionRenderer(transformer), _without_rows, _json]


def _as_exception(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """For readers a handler's traceback stands below its line, as any other does."""
    if "traceback" in event and "exc_info" not in event:
        event["exception"] = event.pop("traceback").rstrip("\n")
    return event


def _plain_traceback(out: Any, exc_info: Any) -> None:
    out.write("\n" + ROW.sub("", "".join(traceback.format_exception(*exc_info))))


def _without_rows(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Cut off what PostgreSQL says about a row."""
    for told in event.get("exception") or ():
        told["exc_value"] = ROW.sub("", told["exc_value"])
    if isinstance(event.get("error"), str):
        event["error"] = ROW.sub("", event["error"])
    return event


def _json(_: Any, __: str, event: MutableMapping[str, Any]) -> str:
    try:
        return orjson.dumps(event, default=str).decode()
    except TypeError:
        return orjson.dumps(
            {str(name).encode("ascii", "replace").decode(): _told(event[name]) for name in event}
        ).decode()


def _told(value: Any) -> Any:
    """A value as it is, or in ASCII where JSON has no words for it: half a character, a number of 70 bits."""
    try:
        return orjson.Fragment(orjson.dumps(value, default=str))
    except TypeError:
        try:
            return ascii(value)
        except Exception:
            return f"<{type(value).__name__}>"


class Stderr:
    """Writes whole lines. A log that nobody reads any more ends no process."""

    def msg(self, line: str) -> None:
        try:
            sys.stderr.write(line + "\n")
        except (OSError, ValueError):
            return

    debug = info = warning = warn = error = critical = exception = fatal = log = msg


class StderrHandler(logging.Handler):
    """The standard library's lines go the same way."""

    def __init__(self) -> None:
        super().__init__()
        self.addFilter(Repeats())

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
        except Exception:  # too few arguments, for example: no reason to fail whatever was at work
            record.msg, record.args = f"{record.msg} (its arguments do not fit)", ()
            line = self.format(record)
        Stderr().msg(line)


class Repeats(logging.Filter):
    """Leaves out what Dramatiq said in the same words a moment ago: every second, while RabbitMQ is away."""

    SECONDS = 30.0
    MOST = 100

    def __init__(self) -> None:
        super().__init__()
        self._said: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if not record.name.startswith("dramatiq") or record.exc_info:
            return True
        now, words = time.monotonic(), record.getMessage()
        if now - self._said.get(words, -self.SECONDS) < self.SECONDS:
            return False
        if len(self._said) >= self.MOST:
            self._said.clear()
        self._said[words] = now
        return True


class Budget:
    """Lines of one sort: so many a second at the most, 0 for none. What was left out is said with the next one."""

    def __init__(self, lines: int) -> None:
        self.lines = lines
        self._lock = threading.Lock()
        self._second = 0
        self._used = 0
        self._left_out = 0

    def take(self) -> int | None:
        """None: leave the line out. Else write it, and say that so many were left out before it."""
        second = int(time.monotonic())
        with self._lock:
            if second != self._second:
                self._second, self._used = second, 0
            if self._used >= self.lines:
                self._left_out += 1
                return None
            self._used += 1
            left_out, self._left_out = self._left_out, 0
            return left_out
