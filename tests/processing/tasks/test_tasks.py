"""Django's task interface over users' queues: what its own back ends promise holds here as far as it maps."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta
from importlib import import_module
from typing import Any
from uuid import uuid4

import pytest
from asgiref.sync import async_to_sync
from django.conf import settings
from django.db import transaction
from django.test import override_settings
from django.utils import timezone
from django_tasks import TaskResultStatus, default_task_backend, task_backends
from django_tasks.exceptions import InvalidTaskError, TaskResultDoesNotExist, TaskResultMismatch
from django_tasks.signals import task_enqueued, task_finished, task_started

import queues
from accounts.models import User
from processing.tasks.backend import OrderedBackend, OrderedTask
from queues.models import Request
from scripts.place import ROOT
from tests.processing.crew import Hand, new_user, queue_of, requests_of, statuses_of
from tests.processing.kinds import kept
from tests.processing.tasks import functions
from tests.queues.api import Caller

OURS = "processing.tasks.backend.OrderedBackend"
QUICK = {"default": {"BACKEND": OURS, "OPTIONS": {"backoff": 0.02, "backoff_cap": 0.05, "time_limit": 2}}}


@pytest.fixture(autouse=True)
def _tasks() -> Iterator[None]:
    functions.CALLS.clear()
    with override_settings(TASKS=QUICK), kept():
        sys.modules.pop("processing.tasks.handlers", None)
        import_module("processing.tasks.handlers")
        yield


@pytest.fixture
def user(transactional_db: None) -> User:
    return new_user()


def refreshed(result: Any) -> Any:
    result.refresh()
    return result


def test_the_back_end_is_ours_and_finds_nothing_wrong() -> None:
    assert isinstance(task_backends["default"], OrderedBackend)
    assert list(default_task_backend.check()) == []
    assert isinstance(functions.note, OrderedTask)


def test_an_enqueued_task_is_ready_and_can_be_found(user: User) -> None:
    result = functions.note.using(user=user).enqueue(1, two=3)
    assert (result.status, result.is_finished, result.attempts) == (TaskResultStatus.READY, False, 0)
    assert (result.args, result.kwargs, result.started_at, result.finished_at) == ([1], {"two": 3}, None, None)
    assert result.task == functions.note.using(user=user)
    with pytest.raises(ValueError, match="has not finished"):
        _ = result.return_value
    assert default_task_backend.get_result(result.id) == result
    assert functions.note.get_result(result.id) == result
    with pytest.raises(TaskResultMismatch):
        functions.fail.get_result(result.id)


def test_tasks_run_in_their_users_order_and_give_results(hand: Hand, user: User) -> None:
    ours = functions.note.using(user=user)
    results = [ours.enqueue(n, {"deep": [n]}, key=None) for n in range(3)]
    hand.settle()
    assert [call[0][0] for call in functions.CALLS] == [0, 1, 2]
    last = refreshed(results[2])
    assert (last.status, last.return_value, last.attempts) == (
        TaskResultStatus.SUCCESSFUL,
        [[2, {"deep": [2]}], {"key": None}],
        1,
    )
    assert last.enqueued_at <= last.started_at <= last.last_attempted_at <= last.finished_at
    assert last.errors == []


def test_an_async_task_runs(hand: Hand, user: User) -> None:
    result = functions.note_async.using(user=user).enqueue(7)
    hand.settle()
    assert refreshed(result).return_value == 7


def test_an_async_task_that_never_ends_overruns_its_time_limit(
    hand: Hand, user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    from processing.tasks import handlers as module

    monkeypatch.setattr(module.kinds, "find", shorter(module.kinds.find))
    functions.never_end.using(user=user).enqueue()
    hand.dispatch()
    hand.work(turns=1)
    (request,) = requests_of(user)
    assert request.error["type"] == "TimeLimitExceeded"


def shorter(find: Any) -> Any:
    from dataclasses import replace

    return lambda name, version=None: replace(find(name, version), time_limit=0.05)


def test_a_task_is_retried_and_its_context_counts(hand: Hand, user: User) -> None:
    result = functions.fail_twice.using(user=user).enqueue()
    hand.settle()
    done = refreshed(result)
    assert (done.return_value, done.attempts) == ([3, result.id], 3)
    assert [error.exception_class for error in done.errors] == [functions.Broken] * 2


@pytest.mark.parametrize(
    ("name", "exception"), [("fail", functions.Broken), ("fail_with_a_value", ValueError), ("leave", SystemExit)]
)
def test_a_task_that_fails_tells_why(name: str, exception: type[BaseException], hand: Hand, user: User) -> None:
    result = getattr(functions, name).using(user=user).enqueue()
    hand.settle()
    failed = refreshed(result)
    assert (failed.status, failed.is_finished, failed.attempts) == (TaskResultStatus.FAILED, True, 3)
    with pytest.raises(ValueError, match="Task failed"):
        _ = failed.return_value
    assert failed.errors[0].exception_class is exception
    assert "as asked for" in failed.errors[0].traceback
    assert f"in {name}" in failed.errors[0].traceback


def test_what_cannot_be_stored_is_no_result_and_no_argument(hand: Hand, user: User) -> None:
    result = functions.return_a_function.using(user=user).enqueue()
    hand.settle()
    assert refreshed(result).errors[0].exception_class is TypeError
    with pytest.raises(TypeError, match="Unsupported type"):
        functions.note.using(user=user).enqueue(datetime(2026, 1, 1))  # noqa: DTZ001
    assert len(requests_of(user)) == 1


def test_run_after_is_when_it_may_begin(user: User) -> None:
    later = timezone.now() + timedelta(hours=1)
    result = functions.note.using(user=user, run_after=later).enqueue()
    assert statuses_of(user) == ["scheduled"]
    assert default_task_backend.get_result(result.id) == result
    with pytest.raises(InvalidTaskError, match="aware"):
        functions.note.using(user=user, run_after=datetime(2030, 1, 1))  # noqa: DTZ001
    with pytest.raises(queues.Invalid):
        functions.note.using(user=user, run_after=later + timedelta(days=800)).enqueue()


def test_it_is_enqueued_in_the_callers_transaction_and_once_for_a_key(user: User) -> None:
    enqueued: list[str] = []

    def receive(task_result: Any, **_: Any) -> None:
        enqueued.append(task_result.id)

    task_enqueued.connect(receive)
    try:
        with transaction.atomic():
            functions.note.using(user=user).enqueue()
            transaction.set_rollback(True)
        assert (requests_of(user), enqueued) == ([], [])
        once = functions.note.using(user=user, idempotency_key="order-7")
        first, again = once.enqueue(1), once.enqueue(1)
    finally:
        task_enqueued.disconnect(receive)
    assert first.id == again.id == str(requests_of(user)[0].id)
    assert len(requests_of(user)) == 1


def test_signals_are_sent_when_it_starts_and_ends(hand: Hand, user: User) -> None:
    told: list[tuple[str, TaskResultStatus, int]] = []

    def receive(signal: Any, task_result: Any, **_: Any) -> None:
        told.append(("started" if signal is task_started else "finished", task_result.status, task_result.attempts))

    for signal in (task_started, task_finished):
        signal.connect(receive)
    try:
        functions.fail.using(user=user).enqueue()
        hand.settle()
    finally:
        for signal in (task_started, task_finished):
            signal.disconnect(receive)
    running, failed = TaskResultStatus.RUNNING, TaskResultStatus.FAILED
    assert told == [*(("started", running, number) for number in (1, 2, 3)), ("finished", failed, 3)]


@pytest.mark.django_db
def test_a_result_that_is_not_there_is_told() -> None:
    for id_ in (str(uuid4()), "123", None):
        with pytest.raises(TaskResultDoesNotExist):
            default_task_backend.get_result(id_)  # type: ignore[arg-type]
    user = new_user()
    other = queues.submit(user, "demo.echo", 1)
    with pytest.raises(TaskResultDoesNotExist):
        default_task_backend.get_result(str(other.id))


@pytest.mark.django_db
def test_it_must_be_said_whose_a_task_is() -> None:
    with pytest.raises(InvalidTaskError, match=r"say in whose order it runs: using\(user=\.\.\)"):
        functions.note.enqueue()
    with override_settings(TASKS={"default": {"BACKEND": OURS, "OPTIONS": {"user": "the-service"}}}):
        with pytest.raises(InvalidTaskError, match="there is no such user"):
            functions.note.enqueue()
        User.objects.create_user("the-service")
        functions.note.enqueue()
    assert Request.objects.get().queue == queue_of(User.objects.get(username="the-service"))


def test_what_does_not_map_is_refused_where_it_is_declared() -> None:
    with pytest.raises(InvalidTaskError, match="priority"):
        functions.note.using(priority=5)
    with pytest.raises(InvalidTaskError, match="not valid for backend"):
        functions.note.using(queue_name="other")


@pytest.mark.django_db
def test_nobody_names_a_function_over_the_api() -> None:
    caller = Caller()
    payload = {"task": "os.system", "arguments": ["true"], "keywords": {}}
    assert caller.post("requests", {"kind": "task.default", "payload": payload}).status == 403
    assert "task.default" not in {kind["kind"] for kind in caller.get("kinds").json}


def test_what_is_no_task_is_never_called(hand: Hand, user: User) -> None:
    for path in ("tests.processing.tasks.functions.no_task", "tests.nothing.there"):
        payload = {"task": path, "arguments": [], "keywords": {}}
        queues.submit(user, "task.default", payload, check_permission=False)
    hand.settle()
    assert statuses_of(user) == ["failed", "failed"]
    assert functions.CALLS == []
    assert [request.attempt for request in requests_of(user)] == [1, 1], "no attempt would help"


def test_the_async_interface_is_there(user: User) -> None:
    result = async_to_sync(functions.note.using(user=user).aenqueue)(1)
    assert async_to_sync(default_task_backend.aget_result)(result.id) == result


@pytest.mark.parametrize(
    ("about", "sentence"),
    [
        ({"OPTIONS": {"retries": 3}}, "TASKS['default']: there is no option 'retries'. Write max_attempts,"),
        ({"QUEUES": ["mail"]}, "TASKS['default']: each user has one queue, named default."),
        ({"OPTIONS": {"max_attempts": 0}}, "'task.default' has max_attempts=0: write a whole number from 1."),
    ],
)
def test_what_does_not_map_stops_the_start(about: dict[str, Any], sentence: str, tmp_path: Any) -> None:
    ran = check(tmp_path, f"TASKS = {{'default': {{'BACKEND': {OURS!r}, **{about!r}}}}}\n")
    assert ran.returncode != 0
    assert sentence in ran.stderr


def test_it_is_turned_on_by_naming_the_app(tmp_path: Any) -> None:
    ran = check(tmp_path, "")
    assert ran.returncode == 0, ran.stderr
    assert settings.TASKS["default"]["BACKEND"] == OURS


def check(folder: Any, more: str) -> "subprocess.CompletedProcess[str]":
    (folder / "with_tasks.py").write_text(f"from project.settings import *\n{more}")
    variables = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "with_tasks",
        "PYTHONPATH": f"{folder}:{ROOT}",
        "EXTRA_APPS": "processing.tasks",
    }
    command = [sys.executable, "manage.py", "check"]
    return subprocess.run(command, env=variables, cwd=ROOT, capture_output=True, text=True, check=False)


def test_the_guides_task_runs(hand: Hand, user: User) -> None:
    guide = (ROOT / "docs" / "python.md").read_text().partition("## Django's tasks")[2]
    declared, enqueued = re.findall(r"^```py\n(.+?)^```", guide, re.DOTALL | re.MULTILINE)
    module = type(sys)("guide_tasks")
    sys.modules["guide_tasks"] = module
    try:
        exec(declared, module.__dict__)  # noqa: S102  (our own)
        given = {"user": user, "send_report": module.send_report}
        exec(enqueued, given)  # noqa: S102
        hand.settle()
        given["result"].refresh()
    finally:
        del sys.modules["guide_tasks"]
    assert given["result"].return_value == {"sent": 3, "attempt": 1}
