"""What those who write handlers test them with."""

import os
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from django.db import transaction

import queues
from accounts.models import User
from processing import testing
from processing.handlers import HandlerRequest, NoHandler, Reject, RetryLater, TimeLimitExceeded
from processing.testing import drain, run
from project.rest.problems import Invalid
from queues.lifecycle import control
from queues.models import Attempt
from scripts.place import ROOT
from tests.conftest import SERVERS
from tests.processing.conftest import Script
from tests.processing.crew import new_user, queue_of, requests_of, statuses_of, submit
from tests.processing.frozen import QUEUE, frozen
from tests.watched import watched

KIND = "test.script"


def test_a_handler_is_called_by_its_kind_or_itself() -> None:
    ran = run("demo.echo", {"a": [1, 2]})
    assert (ran.kind, ran.attempt, ran.status, ran.outcome, ran.result) == (
        "demo.echo", 1, "succeeded", "succeeded", {"a": [1, 2]},
    )  # fmt: skip
    from processing.demo.handlers import echo

    assert run(echo, "x").result == "x"


def test_what_the_api_refuses_is_refused() -> None:
    with pytest.raises(Invalid):
        run("demo.sleep", {"seconds": "long"})
    with pytest.raises(Invalid):
        run("nobody.knows", 1)
    with pytest.raises(NoHandler, match="has no @handler"):
        run(test_what_the_api_refuses_is_refused)


def test_an_attempt_tells_what_it_made_of_the_request(script: Script) -> None:
    @script
    def fail(request: HandlerRequest) -> None:
        request.submit("demo.echo", "never")
        raise ValueError("no paper")

    first = run(KIND, "fail")
    assert (first.status, first.outcome, first.result, first.submitted) == ("retrying", "failed", None, [])
    assert first.error is not None
    assert (first.error["type"], first.error["message"]) == ("ValueError", "no paper")
    assert isinstance(first.exception, ValueError)
    assert first.delay is not None
    assert run(KIND, "fail", attempt=3).status == "failed"

    @script
    def later(_: HandlerRequest) -> None:
        raise RetryLater(7)

    assert (run(KIND, "later").outcome, run(KIND, "later").delay) == ("postponed", 7)

    @script
    def never(_: HandlerRequest) -> None:
        raise Reject("no such account")

    assert (run(KIND, "never").status, run(KIND, "never").outcome) == ("failed", "rejected")


def test_progress_and_next_requests_are_told(script: Script) -> None:
    user = User(username="nobody")

    @script
    def report(request: HandlerRequest) -> str:
        for page in (1, 2, 3):
            request.progress(page, 3, f"page {page}")
        request.submit("demo.echo", {"of": "report"})
        return str(request.user_id)

    ran = run(KIND, "report", user=user)
    assert ran.progress == [(1, 3, "page 1"), (2, 3, "page 2"), (3, 3, "page 3")]
    assert [(one.kind.name, one.payload) for one in ran.submitted] == [("demo.echo", '{"of":"report"}')]
    assert ran.result == str(user.id)


def test_a_cancelled_request_is_cancelled_only_if_its_handler_looks(script: Script) -> None:
    @script
    def looks(request: HandlerRequest) -> None:
        while not request.cancelled:
            raise AssertionError("it is")

    @script
    def looks_away(_: HandlerRequest) -> None: ...

    assert run(KIND, "looks", cancelled=True).status == "cancelled"
    assert run(KIND, "looks_away", cancelled=True).status == "succeeded"


def test_the_time_limit_holds(script: Script) -> None:
    @script
    def hangs(_: HandlerRequest) -> None:
        until = time.monotonic() + 30
        while time.monotonic() < until:
            pass

    ran = run("test.limited", "hangs")
    assert (ran.outcome, type(ran.exception)) == ("timed_out", TimeLimitExceeded)


@pytest.mark.django_db(transaction=True)
def test_an_atomic_handler_is_rolled_back_when_it_fails(script: Script) -> None:
    queue_user = new_user()

    @script
    def writes(request: HandlerRequest) -> None:
        User.objects.filter(id=queue_user.id).update(email="written@example.com")
        if request.attempt == 1:
            raise RuntimeError("not yet")

    assert run("test.atomic", "writes").status == "retrying"
    assert not User.objects.filter(email="written@example.com").exists()
    assert run("test.atomic", "writes", attempt=2).status == "succeeded"
    assert User.objects.filter(email="written@example.com").exists()


@pytest.mark.django_db(transaction=True)
def test_a_queue_runs_to_its_end_in_order_with_its_retries(script: Script) -> None:
    seen: list[tuple[int, int]] = []

    @script
    def second_time(request: HandlerRequest) -> str:
        seen.append((request.sequence, request.attempt))
        if request.attempt == 1:
            raise RuntimeError("not yet")
        request.submit(KIND, "last")
        return "done"

    @script
    def last(request: HandlerRequest) -> None:
        seen.append((request.sequence, request.attempt))

    alice, bob = new_user(), new_user()
    submit(alice, "second_time", "last")
    submit(bob, "last")
    ran = drain(alice)
    assert [(one.status, one.attempt, one.result) for one in ran] == [
        ("retrying", 1, None), ("succeeded", 2, "done"), ("succeeded", 1, None), ("succeeded", 1, None),
    ]  # fmt: skip
    assert seen == [(1, 1), (1, 2), (2, 1), (3, 1)]
    assert statuses_of(alice) == ["succeeded"] * 3
    assert Attempt.objects.filter(request__queue__user=alice).count() == 2
    assert statuses_of(bob) == ["queued"]
    assert drain(alice) == []
    assert drain(new_user()) == []


@pytest.mark.django_db(transaction=True)
def test_it_ends_where_a_queue_is_paused_or_blocked_and_goes_on_afterwards(script: Script) -> None:
    alice = new_user()

    @script
    def fine(_: HandlerRequest) -> None: ...

    @script
    def boom(_: HandlerRequest) -> None:
        raise RuntimeError("boom")

    @script
    def kept_with_its_record(request: HandlerRequest) -> str:
        return str(request.sequence)

    submit(alice, "fine")
    control.pause(queue_of(alice).id)
    assert drain(alice) == []
    control.resume(queue_of(alice).id)
    assert [one.status for one in drain(alice)] == ["succeeded"]
    (blocked,) = submit(alice, "boom", kind="test.block")
    submit(alice, "kept_with_its_record", kind="test.atomic")
    assert [(one.id, one.blocked) for one in drain(alice)] == [(blocked.submission.id, True)]
    control.skip(blocked.submission.id)
    assert [(one.status, one.result) for one in drain(alice)] == [("succeeded", "3")]


@pytest.mark.django_db(transaction=True)
def test_what_never_ends_is_said(script: Script) -> None:
    alice = new_user()

    @script
    def again(request: HandlerRequest) -> None:
        request.submit(KIND, "again")

    submit(alice, "again")
    with pytest.raises(RuntimeError, match="5 attempts and no end"):
        drain(alice, attempts=5)
    assert [one.status for one in requests_of(alice)].count("succeeded") == 5
    with transaction.atomic(), pytest.raises(RuntimeError, match="transaction=True"):
        drain(alice)


APP = {
    "yours/__init__.py": "",
    "yours/handlers.py": """
from processing.handlers import handler


@handler("yours.greet", max_attempts=2)
def greet(request, payload):
    if request.attempt == 1:
        raise RuntimeError("shy")
    return f"hello {payload}"
""",
    "yours/test_greet.py": """
from yours.handlers import greet


def test_it_is_shy(run_handler):
    assert run_handler(greet, "ada").error["message"] == "shy"
    assert run_handler("yours.greet", "ada", attempt=2).result == "hello ada"


def test_it_greets_in_the_end(submit, drain, queue_user):
    first, second = submit("yours.greet", "ada"), submit("yours.greet", "bob")
    assert [(one.id, one.result) for one in drain()] == [
        (first.id, None), (first.id, "hello ada"), (second.id, None), (second.id, "hello bob")
    ]
""",
}


def test_the_fixtures_work_in_an_app_of_somebody_elses(tmp_path: Path) -> None:
    for name, text in APP.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    code = f"from scripts.run.commands import test; test([{str(tmp_path / 'yours')!r}, '-q', '-p', 'no:cacheprovider'])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=os.environ | SERVERS.environment() | watched() | {"EXTRA_APPS": "yours", "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert "2 passed" in done.stdout, done.stdout + done.stderr


def test_all_of_it_is_named() -> None:
    assert set(testing.__all__) == {"Ran", "drain", "run"}
    assert queues.submit.__name__ == "submit"


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("fine")
def test_a_queue_that_somebody_has_locked_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    user = new_user()
    submit(user, "fine")
    with ExitStack() as lock:
        lock.enter_context(frozen(QUEUE, queue_of(user).id))
        threading.Timer(0.1, lock.close).start()
        assert [ran.status for ran in drain(user)] == ["succeeded"]
    submit(user, "fine")
    monkeypatch.setattr("processing.testing.draining.LOCKED_SECONDS", 0.05)
    with frozen(QUEUE, queue_of(user).id), pytest.raises(RuntimeError, match="somebody has had the queue's row locked"):
        drain(user)
