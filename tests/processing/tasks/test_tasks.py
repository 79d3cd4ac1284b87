"""Django's task interface over users' queues: what its own back ends promise holds here as far as it maps."""

import os
import re
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.db import transaction
from django.test import override_settings
from django.utils import timezone
from django_tasks import TaskResultStatus, default_task_backend, task_backends
from django_tasks.exceptions import InvalidTaskError
from django_tasks.signals import task_enqueued

import queues
from accounts.models import User
from processing.tasks.backend import OrderedBackend, OrderedTask
from queues.models import Request
from scripts.place import ROOT
from tests.processing.crew import Hand, queue_of, requests_of, statuses_of
from tests.processing.tasks import functions
from tests.processing.tasks.conftest import OURS, refreshed
from tests.queues.api import Caller


def test_the_back_end_is_ours_and_finds_nothing_wrong() -> None:
    assert isinstance(task_backends["default"], OrderedBackend)
    assert list(default_task_backend.check()) == []
    assert isinstance(functions.note, OrderedTask)


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


def test_run_after_is_when_it_may_begin(user: User) -> None:
    later = timezone.now() + timedelta(hours=1)
    result = functions.note.using(user=user, run_after=later).enqueue()
    assert statuses_of(user) == ["scheduled"]
    assert default_task_backend.get_result(result.id) == result
    with pytest.raises(InvalidTaskError, match="aware"):
        functions.note.using(user=user, run_after=datetime(2030, 1, 1))  # noqa: DTZ001
    with pytest.raises(queues.Invalid):
        functions.note.using(user=user, run_after=later + timedelta(days=800)).enqueue()


def test_it_is_enqueued_in_the_callers_transaction_and_once_for_a_key(hand: Hand, user: User) -> None:
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
        hand.settle()
        finished = once.enqueue(1)
    finally:
        task_enqueued.disconnect(receive)
    assert first.id == again.id == str(requests_of(user)[0].id)
    assert len(requests_of(user)) == 1
    assert enqueued == [first.id]
    assert (again.status, finished.id, finished.return_value) == (TaskResultStatus.READY, first.id, [[1], {}])


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


@pytest.mark.django_db
def test_nobody_names_a_function_over_the_api() -> None:
    caller = Caller()
    payload = {"task": "os.system", "arguments": ["true"], "keywords": {}}
    assert caller.post("requests", {"kind": "task.default", "payload": payload}).status == 403
    assert "task.default" not in {kind["kind"] for kind in caller.get("kinds").json}


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("tests.processing.tasks.functions.no_task", "is not a task"),
        ("tests.processing.tasks.functions.of_the_next_release", 'does not define a "of_the_next_release" attribute'),
        ("incomplete.note", "No module named 'a_dependency'"),
    ],
)
def test_what_this_code_has_no_task_for_waits_as_what_has_no_handler(
    path: str, why: str, hand: Hand, user: User, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "incomplete.py").write_text("import a_dependency\n")
    monkeypatch.syspath_prepend(tmp_path)
    queues.submit(user, "task.default", {"task": path, "arguments": [], "keywords": {}}, check_permission=False)
    hand.dispatch()
    hand.work()
    (request,), queue = requests_of(user), queue_of(user)
    assert (queue.state, request.error["type"]) == ("waiting", "NoSuchTask")
    assert path in request.error["message"]
    assert why in request.error["message"]
    assert queue.wake_at is not None
    assert queue.wake_at - timezone.now() > timedelta(seconds=20)
    assert functions.CALLS == []


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
    guide = (ROOT / "docs" / "django-tasks.md").read_text()
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
