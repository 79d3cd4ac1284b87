"""A failed attempt explains itself: where it failed, to its author in the log and to operators with the attempt."""

import sys
import threading
import time
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import orjson
import pytest
import structlog
from pydantic import BaseModel
from structlog.testing import capture_logs

from accounts.models import User
from processing import handlers, tracebacks
from processing.handlers import HandlerRequest, Reject, RetryLater, TimeLimitExceeded
from queues import event_log, kinds
from queues.models import Attempt, Request
from queues.operations import export
from queues.representation import shape
from tests.client import Client
from tests.processing.conftest import Script
from tests.processing.crew import Hand, new_user, requests_of, submit

PAYLOAD = "what nobody may read"


class Form(BaseModel):
    number: int


def inner(request: HandlerRequest) -> Any:
    secret = PAYLOAD
    raise KeyError(secret)


def fail(hand: Hand, script: Script, kind: str, does: Any) -> list[Attempt]:
    @script
    def failing(request: HandlerRequest) -> Any:
        return does(request)

    user = new_user()
    submit(user, "failing", kind=kind)
    hand.settle(30)
    (request,) = requests_of(user)
    return list(Attempt.objects.filter(request=request))


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    event_log._budgets.clear()
    monkeypatch.setattr(event_log, "log", structlog.get_logger())
    with capture_logs() as captured:
        yield captured
    event_log._budgets.clear()


def test_a_retry_is_a_warning_and_a_final_failure_an_error_with_the_traceback(
    hand: Hand, script: Script, lines: list[Any]
) -> None:
    fail(hand, script, "test.script", inner)
    told = [line for line in lines if line["event"] in ("retrying", "failed")]
    assert [(line["event"], line["log_level"]) for line in told] == [
        ("retrying", "warning"), ("retrying", "warning"), ("failed", "error"),
    ]  # fmt: skip
    for line in told:
        assert "in inner\n    raise KeyError(secret)\n" in line["traceback"]
        assert line["traceback"].endswith("\nKeyError\n")
        assert "processing/worker/turn.py" not in line["traceback"]
        assert "processing/handlers.py" not in line["traceback"]
    assert PAYLOAD not in str(lines), "a message may quote the payload"


def test_what_a_handler_rejects_is_no_error_of_ours(hand: Hand, script: Script, lines: list[Any]) -> None:
    def rejects(request: HandlerRequest) -> Any:
        raise Reject("no")

    fail(hand, script, "test.script", rejects)
    (told,) = [line for line in lines if line["event"] == "failed"]
    assert (told["log_level"], told["outcome"]) == ("info", "rejected")
    assert "traceback" not in told


def test_a_blocked_queue_is_an_error(hand: Hand, script: Script, lines: list[Any]) -> None:
    script(inner)
    submit(new_user(), "inner", kind="test.block")
    hand.dispatch()
    hand.work()
    (told,) = [line for line in lines if line["event"] == "blocked"]
    assert told["log_level"] == "error"
    assert "in inner" in told["traceback"]


def test_the_traceback_is_kept_with_each_attempt(hand: Hand, script: Script) -> None:
    attempts = fail(hand, script, "test.script", inner)
    assert len(attempts) == 3
    for attempt in attempts:
        assert attempt.traceback is not None
        assert attempt.traceback.startswith("Traceback (most recent call last):\n  File ")
        assert attempt.traceback.endswith(f"    raise KeyError(secret)\nKeyError: '{PAYLOAD}'\n")
        assert "turn.py" not in attempt.traceback


def test_what_led_to_an_error_is_told_before_it(hand: Hand, script: Script) -> None:
    def wraps(request: HandlerRequest) -> Any:
        try:
            inner(request)
        except KeyError as error:
            raise RuntimeError("no such report") from error

    (attempt,) = fail(hand, script, "test.once", wraps)
    text = attempt.traceback or ""
    assert text.index("KeyError: ") < text.index(tracebacks.CAUSED_BY) < text.index("RuntimeError: no such report")


def test_a_rejection_has_its_traceback_and_a_postponement_none(hand: Hand, script: Script) -> None:
    def rejects(request: HandlerRequest) -> Any:
        raise Reject("no")

    def postpones(request: HandlerRequest) -> Any:
        if request.attempt == 1:
            raise RetryLater(0.01)
        return 1

    (rejected,) = fail(hand, script, "test.script", rejects)
    assert (rejected.traceback or "").endswith('raise Reject("no")\nprocessing.handlers.Reject: no\n')
    postponed, _ = fail(hand, script, "test.script", postpones)
    assert (postponed.outcome, postponed.traceback) == ("postponed", None)


def test_of_a_handler_that_overran_its_limit_it_says_where_it_was(hand: Hand, script: Script) -> None:
    def sleeps(request: HandlerRequest) -> Any:
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            time.sleep(0.01)

    attempts = fail(hand, script, "test.limited", sleeps)
    assert {attempt.outcome for attempt in attempts} == {"timed_out"}
    assert "in sleeps" in (attempts[0].traceback or "")


def test_of_a_handler_that_nothing_interrupts_it_says_where_it_hangs() -> None:
    began, end = threading.Event(), threading.Event()

    def hangs(request: HandlerRequest, payload: Any) -> None:
        began.set()
        end.wait(30)

    request = HandlerRequest(uuid4(), uuid4(), "demo.echo", 1, 1, 1, "")
    thread = threading.Thread(target=handlers.call, args=(hangs, kinds.find("demo.echo"), request, "1"))
    thread.start()
    try:
        assert began.wait(30)
        found = tracebacks.of(TimeLimitExceeded("It hangs."), sys._current_frames()[thread.ident or 0])
    finally:
        end.set()
        thread.join(30)
    assert found is not None
    first, second, *_ = found.text.splitlines()
    assert (first, second.endswith(", in hangs")) == ("Traceback (most recent call last):", True)
    assert "end.wait(30)" in found.frames
    assert found.text.endswith("processing.handlers.TimeLimitExceeded: It hangs.\n")


def test_an_attempt_is_recorded_though_its_traceback_cannot_be_told(
    hand: Hand, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> Any:
        raise AttributeError("a hostile error")

    monkeypatch.setattr(tracebacks, "_chain", broken)
    (attempt,) = fail(hand, script, "test.once", inner)
    assert (attempt.outcome, attempt.traceback) == ("failed", None)


def deep(levels: int) -> None:
    if levels == 0:
        raise RuntimeError("é" * 5000 + "\0\udce9")
    exec(f"def level_{levels}(): deep({levels - 1})\nlevel_{levels}()")  # noqa: S102  (no two frames alike)


def test_the_end_of_a_long_one_is_kept_and_what_was_cut_is_said(hand: Hand, script: Script) -> None:
    (attempt,) = fail(hand, script, "test.once", lambda _: deep(80))
    text = attempt.traceback or ""
    assert 15_000 < len(text.encode()) <= tracebacks.MOST_BYTES
    first, _, rest = text.partition("\n")
    assert first.startswith("[the first ")
    assert first.endswith(" bytes are cut]")
    assert "RuntimeError: éé" in rest


def test_what_pydantic_was_given_is_left_out(hand: Hand, script: Script) -> None:
    (attempt,) = fail(hand, script, "test.once", lambda _: Form.model_validate({"number": PAYLOAD}))
    assert PAYLOAD not in (attempt.traceback or "")
    assert (attempt.traceback or "").endswith(
        "ValidationError: number: Input should be a valid integer, unable to parse string as an integer\n"
    )


def test_a_success_after_failures_has_none_of_its_own(hand: Hand, script: Script) -> None:
    def second(request: HandlerRequest) -> Any:
        if request.attempt == 1:
            raise RuntimeError
        return 1

    first, last = fail(hand, script, "test.script", second)
    assert first.traceback is not None
    assert (last.outcome, last.traceback) == ("succeeded", None)


def test_operators_see_it_and_its_owner_does_not(hand: Hand, script: Script) -> None:
    (attempt,) = fail(hand, script, "test.once", inner)
    request = Request.objects.select_related("queue__user").get(id=attempt.request_id)
    assert "traceback" not in shape.attempts(request, request.attempts.all())[0]
    exported = b"".join(orjson.dumps(record, default=str) for record in export.records(request.queue.user))
    assert b"KeyError" in exported
    assert b"in inner" not in exported
    operator = Client()
    operator.force_login(User.objects.create_superuser("operator"))
    page = operator.get(f"/admin/queues/request/{request.id}/change/")
    assert page.status_code == 200
    assert "in inner" in page.content.decode()
