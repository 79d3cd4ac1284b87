"""One log: JSON that machines read, no row, no local variable, no traceback where one line says it."""

import json
import logging
import subprocess
import sys
from types import SimpleNamespace

import pytest

from project.settings import ROOT_URLCONF
from project.telemetry.logs import Budget, Repeats, StderrHandler, _without_rows
from scripts.place import ROOT

SAYING = """
import logging, sys
from project.telemetry import logs
logs.configure({"level": sys.argv[1], "style": sys.argv[2]})
import structlog
log = structlog.get_logger()
structlog.contextvars.bind_contextvars(request_id="r-1")
log.debug("quiet")
log.info("said", queue=5)
def crash(password):
    raise ValueError(f"a defect\\nDETAIL:  Failing row contains ({password}).")
try:
    crash(sys.argv[3])
except ValueError as error:
    log.exception("crashed", error=str(error))
    logging.getLogger("django.request").error("Internal: %s", "/path", exc_info=True)
logging.getLogger("dramatiq.worker").critical("Consumer encountered a connection error: %s", "gone")
logging.getLogger("pika.adapters").error("AMQPConnectionWorkflow failed", exc_info=True)
logging.getLogger("_granian").info("Spawning worker-1")
"""


def logged(level: str = "INFO", style: str = "json") -> str:
    # The secret comes from outside: a traceback may quote the program itself (Python 3.13 does for -c, too).
    command = [sys.executable, "-c", SAYING, level, style, "secret-password"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "", "a command's own output is alone on stdout"
    assert "secret" not in done.stderr
    return done.stderr


def test_every_line_is_json_whoever_says_it() -> None:
    lines = [json.loads(line) for line in logged().splitlines()]
    assert [line["event"] for line in lines] == [
        "said",
        "crashed",
        "Internal: /path",
        "Consumer encountered a connection error: gone",
        "Spawning worker-1",
    ]
    assert {line["request_id"] for line in lines} == {"r-1"}
    assert all(line["at"].endswith("Z") and line["level"] for line in lines)
    assert lines[0]["queue"] == 5
    assert lines[1]["error"] == lines[1]["exception"][0]["exc_value"] == "a defect"
    assert lines[1]["exception"][0]["frames"][-1]["name"] == "crash"
    assert lines[2]["exception"][0]["exc_type"] == "ValueError"


def test_a_reader_gets_plain_lines_and_a_plain_traceback() -> None:
    text = logged(style="console")
    assert "said" in text
    assert "queue=5" in text
    assert "Traceback (most recent call last)" in text
    assert "\x1b" not in text, "no colours where no terminal is"


def test_debug_shows_what_is_usually_kept_quiet() -> None:
    events = [json.loads(line)["event"] for line in logged("DEBUG").splitlines()]
    assert "quiet" in events
    assert "AMQPConnectionWorkflow failed" in events
    assert "said" not in logged("WARNING")


def test_what_postgresql_says_of_a_row_is_cut_off() -> None:
    event = {"error": "refused\nDETAIL:  Failing row contains (1, secret)."}
    assert _without_rows(None, "", event) == {"error": "refused"}


def test_a_budget_leaves_lines_out_and_says_how_many(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("project.telemetry.logs.time", SimpleNamespace(monotonic=lambda: now))
    budget = Budget(2)
    assert [budget.take() for _ in range(5)] == [0, 0, None, None, None]
    now = 101.5
    assert [budget.take(), budget.take(), budget.take()] == [3, 0, None]
    assert Budget(0).take() is None


def test_what_dramatiq_repeats_every_second_is_said_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("project.telemetry.logs.time", SimpleNamespace(monotonic=lambda: now))
    repeats = Repeats()

    def passes(words: str, name: str = "dramatiq.worker.ConsumerThread(drain)") -> bool:
        return repeats.filter(logging.LogRecord(name, logging.CRITICAL, "", 0, words, None, None))

    assert [passes("gone"), passes("gone"), passes("gone, too")] == [True, False, True]
    assert passes("gone", "yourapp"), "others say what they like"
    assert passes("gone", "yourapp")
    now += Repeats.SECONDS
    assert passes("gone")
    assert all(passes(f"gone {n}") for n in range(Repeats.MOST + 1)), "what it remembers does not grow"


def test_the_standard_library_logs_through_the_same_handler() -> None:
    assert ROOT_URLCONF  # the settings are loaded
    (handler,) = [h for h in logging.getLogger().handlers if isinstance(h, StderrHandler)]
    assert type(handler.formatter).__name__ == "ProcessorFormatter"
    assert logging.getLogger("django").handlers == logging.getLogger("_granian").handlers == []


def test_granians_first_process_logs_in_the_same_shape() -> None:
    """It knows no settings: its log is set up by the file that --log-config names."""
    set_up = (
        "import json, logging.config; logging.config.dictConfig(json.load(open('project/granian.json')));"
        "logging.getLogger('_granian').info('Listening at: %s', 'here')"
    )
    done = subprocess.run([sys.executable, "-c", set_up], capture_output=True, text=True, check=True, cwd=ROOT)
    line = json.loads(done.stderr)
    assert (line["event"], line["level"], line["logger"]) == ("Listening at: here", "info", "_granian")


UNSPEAKABLE = """
import logging
from project.telemetry import logs
logs.configure({"level": "INFO", "style": "json"})
import structlog
log = structlog.get_logger()
class Mute:
    def __str__(self):
        raise ValueError
    __repr__ = __str__
for value in "\\ud800", 2**70, {1: 2}, Mute():
    log.info("said", value=value, queue=5)
try:
    raise ValueError("\\ud800")
except ValueError:
    log.exception("said", queue=5)
    logging.getLogger("a.library").exception("said")
logging.getLogger("a.library").warning("said %s %s", "once")
logging.getLogger("a.library").warning("said %s", "\\ud800")
"""


def test_what_json_has_no_words_for_fails_nobody_who_logs_it() -> None:
    done = subprocess.run([sys.executable, "-c", UNSPEAKABLE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert [line["event"].strip("'")[:4] for line in lines] == ["said"] * 8
    assert [line["queue"] for line in lines[:5]] == [5] * 5
    assert [line["value"] for line in lines[:4]] == ["'\\ud800'", str(2**70), "{1: 2}", "<Mute>"]
    assert all("ud800" in line["exception"] for line in lines[4:6])
