"""The log tells one request's way with everything that finds it again, and nothing of its payload."""

import logging
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import structlog
from django.db import OperationalError
from django.utils import timezone
from structlog.testing import capture_logs

from accounts.models import User
from processing.handlers import HandlerRequest
from project.telemetry.logs import at_work
from queues import event_log
from queues.exceptions import NotPossible
from queues.lifecycle import control, locking
from queues.lifecycle.recovery import recover
from queues.models import UserQueue
from tests.processing.conftest import Script
from tests.processing.crew import Hand, new_user, queue_of, requests_of, submit
from tests.queues.api import Caller

pytestmark = pytest.mark.django_db(transaction=True)

Lines = list[dict[str, Any]]


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[Lines]:
    event_log._budgets.clear()
    # One that was used before, and is remembered with what was configured then, would not be captured.
    monkeypatch.setattr(event_log, "log", structlog.get_logger())
    with capture_logs() as captured:
        yield captured
    event_log._budgets.clear()


def of(lines: Lines, user: User) -> Lines:
    return [line for line in lines if line.get("user") == str(user.id)]


def events(lines: Lines, user: User) -> list[str]:
    return [line["event"] for line in of(lines, user)]


def test_one_line_a_transition_with_all_that_finds_the_request(hand: Hand, script: Script, lines: Lines) -> None:
    message = "the secret payload"

    @script
    def flaky(request: HandlerRequest) -> int:
        if request.attempt == 1:
            raise RuntimeError(message)
        return 1

    caller = Caller()
    answer = caller.post("requests", {"kind": "test.script", "payload": "flaky"}, X_Request_ID="trace-1")
    hand.settle()
    assert events(lines, caller.user) == ["accepted", "started", "retrying", "started", "succeeded"]
    for line in of(lines, caller.user):
        assert line["request"] == answer.json["id"]
        assert (line["sequence"], line["kind"]) == (1, "test.script")
        assert (line["queue"], line["request_id"]) == (queue_of(caller.user).id, "trace-1")
    assert [line.get("attempt") for line in of(lines, caller.user)] == [None, 1, 1, 2, 2]
    retried = of(lines, caller.user)[2]
    assert (retried["error"], retried["outcome"]) == ("RuntimeError", "failed")
    assert "secret" not in str(lines)


def test_a_batch_is_one_line_and_so_is_what_succeeded_together(hand: Hand, script: Script, lines: Lines) -> None:
    @script
    def fine(request: HandlerRequest) -> int:
        return 1

    user = new_user()
    submit(user, *["fine"] * 60)
    hand.settle()
    (accepted,) = [line for line in of(lines, user) if line["event"] == "accepted"]
    assert (accepted["requests"], accepted["sequences"]) == (60, "1-60")
    recorded = [line for line in of(lines, user) if line["event"] == "succeeded"]
    assert len(recorded) < 30
    assert sum(line.get("requests", 1) for line in recorded) == 60
    assert recorded[-1].get("sequences", "60").endswith("60")


def test_of_a_flood_so_many_lines_a_second_are_kept(
    lines: Lines, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings.ENV, "log_requests_per_second", 3)
    monkeypatch.setattr("project.telemetry.logs.time", SimpleNamespace(monotonic=lambda: 1000.0))
    user = new_user()
    for _ in range(9):
        submit(user, "anything")
    assert events(lines, user) == ["accepted"] * 3


def test_blocked_skipped_cancelled_and_paused_are_told(hand: Hand, script: Script, lines: Lines) -> None:
    @script
    def broken(request: HandlerRequest) -> int:
        raise RuntimeError("no")

    user = new_user()
    submit(user, *["broken"] * 4, kind="test.block")
    hand.dispatch()
    hand.work()
    queue = queue_of(user)
    head, second, *_ = requests_of(user)
    control.retry(head.id)
    control.pause(queue.id)
    control.cancel(second.id)
    control.resume(queue.id)
    hand.dispatch()
    hand.work()
    control.skip(head.id)
    control.purge(queue.id)
    told = [line["event"] for line in of(lines, user) if line["event"] not in ("accepted", "started")]
    assert told == ["blocked", "retried", "paused", "cancelled", "resumed", "blocked", "skipped", "purged"]
    assert of(lines, user)[-1]["requests"] == 2


def test_what_is_not_committed_is_not_told(lines: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
    user = new_user()
    submit(user, "anything")
    queue, (request,) = queue_of(user), requests_of(user)

    def away(*_: Any, **__: Any) -> None:
        raise OperationalError("the connection was lost")

    verbs = [partial(control.pause, queue.id), partial(control.purge, queue.id)]
    verbs += [partial(control.republish, queue.id), partial(control.cancel, request.id)]
    with monkeypatch.context() as patched:
        patched.setattr(locking.WRITE_LOCKED, "rows", away)
        for verb in verbs:
            with pytest.raises(OperationalError):
                verb()
    assert events(lines, user) == ["accepted"]
    for verb in verbs:
        with suppress(NotPossible):  # purged, it cannot be cancelled
            verb()
    assert events(lines, user) == ["accepted", "paused", "purged", "republished"]


def test_a_scheduled_request_is_told_when_it_has_its_place(hand: Hand, lines: Lines) -> None:
    user = new_user()
    submit(user, "anything", not_before=timezone.now())
    hand.dispatch()
    accepted, queued = (line for line in of(lines, user) if line["event"] in ("accepted", "queued"))
    assert (accepted["sequence"], queued["sequence"]) == (None, 1)
    assert accepted["request"] == queued["request"]


def test_an_attempt_that_was_lost_with_its_worker_is_told(hand: Hand, lines: Lines) -> None:
    user = new_user()
    submit(user, "anything")
    hand.dispatch()
    UserQueue.objects.filter(user=user).update(state="draining", fence=5, claimed=1)
    assert recover(queue_of(user).id, 5)
    (line,) = [line for line in of(lines, user) if line["event"] == "lost"]
    assert (line["status"], line["attempt"]) == ("retrying", 1)


def test_what_a_handler_logs_says_for_which_request(
    hand: Hand, script: Script, capfd: pytest.CaptureFixture[str]
) -> None:
    @script
    def talkative(request: HandlerRequest) -> int:
        structlog.get_logger().info("from structlog", kind="its own word")
        logging.getLogger("yourapp").warning("from the standard library")
        if request.attempt == 1:
            raise RuntimeError("not yet")
        return 1

    caller = Caller()
    answer = caller.post("requests", {"kind": "test.script", "payload": "talkative"}, X_Request_ID="trace-9")
    hand.settle()
    structlog.get_logger().info("after it")
    logging.getLogger("yourapp").warning("after it")
    said = [line for line in capfd.readouterr().err.splitlines() if "from s" in line or "from the s" in line]
    assert len(said) == 4
    for line in said:
        assert f"request={answer.json['id']}" in line
        assert "request_id=trace-9" in line
        assert "sequence=1" in line
    assert "its own word" in said[0]
    assert at_work.get() is None
