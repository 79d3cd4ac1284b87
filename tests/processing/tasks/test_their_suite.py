"""What the tests of django-tasks demand of a back end, one test for each promise. docs/django-tasks.md names theirs."""

import dataclasses
import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.test import override_settings
from django.utils import timezone
from django.utils.module_loading import import_string
from django_tasks import TaskResultStatus, default_task_backend, task, task_backends
from django_tasks.base import TaskError
from django_tasks.exceptions import (
    InvalidTaskBackendError,
    InvalidTaskError,
    TaskResultDoesNotExist,
    TaskResultMismatch,
)
from django_tasks.signals import task_enqueued

from accounts.models import User
from processing.tasks.backend import OrderedBackend, OrderedTask
from tests.processing.crew import Hand, elsewhere, requests_of
from tests.processing.tasks import functions
from tests.processing.tasks.conftest import OURS, QUICK, refreshed
from tests.waiting import until

Call = Callable[..., Any]


@pytest.fixture(params=["sync", "async"])
def called(request: pytest.FixtureRequest) -> Call:
    """Calls a method, or the one of the same name for `async` code."""

    def call(owner: Any, name: str, *args: Any, **kwargs: Any) -> Any:
        if request.param == "sync":
            return getattr(owner, name)(*args, **kwargs)
        return async_to_sync(getattr(owner, f"a{name}"))(*args, **kwargs)

    return call


@pytest.mark.parametrize("each", [functions.note, functions.note_async])
def test_what_is_enqueued_is_ready_to_run_and_its_receivers_are_told(each: Any, called: Call, user: User) -> None:
    told: list[Any] = []

    def receive(sender: Any, task_result: Any, **_: Any) -> None:
        told.append((sender, task_result))

    ours = each.using(user=user)
    task_enqueued.connect(receive)
    try:
        result = called(ours, "enqueue", 1, two=3)
    finally:
        task_enqueued.disconnect(receive)
    assert (result.status, result.is_finished, result.attempts) == (TaskResultStatus.READY, False, 0)
    assert (result.started_at, result.last_attempted_at, result.finished_at) == (None, None, None)
    with pytest.raises(ValueError, match="Task has not finished yet"):
        _ = result.return_value
    assert (result.task, result.args, result.kwargs, result.errors) == (ours, [1], {"two": 3}, [])
    assert told == [(OrderedBackend, result)]


def test_a_result_is_found_by_its_back_end_and_by_its_task(called: Call, user: User) -> None:
    result = called(functions.note.using(user=user), "enqueue", 1)
    assert called(default_task_backend, "get_result", result.id) == result
    assert called(functions.note, "get_result", result.id) == result
    assert elsewhere(lambda: default_task_backend.get_result(result.id)) == result, "another thread finds it, too"
    with pytest.raises(TaskResultMismatch, match="Task does not match"):
        called(functions.fail, "get_result", result.id)
    for id_ in ("123", "00000000-0000-4000-8000-000000000000"):
        with pytest.raises(TaskResultDoesNotExist):
            called(default_task_backend, "get_result", id_)
        with pytest.raises(TaskResultDoesNotExist):
            called(functions.note, "get_result", id_)


def test_refreshing_a_result_tells_what_it_has_become(called: Call, hand: Hand, user: User) -> None:
    result = functions.answer.using(user=user).enqueue()
    before = dataclasses.asdict(result)
    called(result, "refresh")
    assert dataclasses.asdict(result) == before, "nothing happened"
    hand.settle()
    assert result.status == TaskResultStatus.READY
    called(result, "refresh")
    assert (result.status, result.is_finished, result.attempts) == (TaskResultStatus.SUCCESSFUL, True, 1)
    assert result.return_value == 42
    assert result.enqueued_at <= result.started_at <= result.last_attempted_at <= result.finished_at


def test_what_is_no_json_is_no_argument(called: Call, user: User) -> None:
    with pytest.raises(TypeError, match=r"Unsupported type: <class 'datetime\.datetime'>"):
        called(functions.note.using(user=user), "enqueue", timezone.now())
    assert requests_of(user) == []


def test_using_makes_another_task_and_keeps_what_was_said_before(user: User) -> None:
    assert functions.note.using() == functions.note
    assert functions.note.using() is not functions.note
    now = timezone.now()
    first = functions.note.using(run_after=now)
    second = first.using(user=user)
    third = second.using(idempotency_key="order-7")
    assert (first.run_after, second.run_after, third.run_after) == (now, now, now)
    assert (first.user, second.user, third.user) == (None, user.id, user.id)
    assert (functions.note.run_after, functions.note.user, functions.note.idempotency_key) == (None, None, None)


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"priority": 1}, "does not support setting priority"),
        ({"priority": 101}, "priority"),
        ({"priority": 3.1}, "priority"),
        ({"queue_name": "other"}, "Queue 'other' is not valid for backend"),
        ({"run_after": datetime(2030, 1, 1)}, "run_after must be an aware datetime"),  # noqa: DTZ001
    ],
)
def test_a_wrong_default_is_refused_at_once(said: dict[str, Any], why: str) -> None:
    with pytest.raises(InvalidTaskError, match=why):
        functions.note.using(**said)
    functions.note.using(priority=0, queue_name="default", run_after=timezone.now())


def test_a_task_is_checked_again_when_it_is_enqueued(called: Call, user: User) -> None:
    ours = functions.note.using(user=user)
    object.__setattr__(ours, "queue_name", "unknown")
    with pytest.raises(InvalidTaskError, match="Queue 'unknown' is not valid for backend"):
        called(ours, "enqueue")


def test_a_back_end_that_is_not_there_is_told() -> None:
    with pytest.raises(InvalidTaskBackendError, match="The connection 'unknown' doesn't exist"):
        functions.note.using(backend="unknown")
    with (
        override_settings(TASKS={**QUICK, "missing": {"BACKEND": "does.not.exist"}}),
        pytest.raises(InvalidTaskBackendError, match=r"Could not find backend 'does\.not\.exist'"),
    ):
        functions.note.using(backend="missing")
    with override_settings(TASKS={}), pytest.raises(InvalidTaskBackendError):
        functions.note.enqueue()


def test_the_back_end_of_an_alias_has_its_name_and_its_options() -> None:
    two = {**QUICK, "other": {"BACKEND": OURS, "OPTIONS": {"max_attempts": 1}}}
    with override_settings(TASKS=two):
        assert default_task_backend == task_backends["default"]
        other = functions.note.using(backend="other")
        assert (other.backend, other.get_backend().alias) == ("other", "other")
        assert other.get_backend().options == {"max_attempts": 1}
        assert list(other.get_backend().check()) == []


def test_a_task_knows_its_name_and_its_place_and_can_be_called() -> None:
    assert (functions.note.name, functions.note_async.name) == ("note", "note_async")
    for each in (functions.note, functions.note_async, functions.answer):
        assert isinstance(each, OrderedTask)
        assert import_string(each.module_path) is each
    assert (functions.answer.call(), async_to_sync(functions.answer.acall)()) == (42, 42)
    assert (functions.note_async.call(1), async_to_sync(functions.note_async.acall)(1)) == (1, 1)


def test_what_is_no_function_of_a_module_is_no_task() -> None:
    def inner() -> None: ...

    for wrong in (any, inner, self_of_a_class.method):
        with pytest.raises(InvalidTaskError, match="must be defined at a module level"):
            task()(wrong)
    with pytest.raises(InvalidTaskError, match="does not have a first argument of 'context'"):
        task(takes_context=True)(functions.answer.func)


class Class:
    def method(self) -> None: ...


self_of_a_class = Class()


def test_the_decorator_takes_what_our_tasks_have_and_nothing_else(user: User) -> None:
    theirs = task(user=user.id)(functions.answer.func)
    assert isinstance(theirs, OrderedTask)
    assert (theirs.user, theirs.run_after, theirs.takes_context) == (user.id, None, False)
    with pytest.raises(TypeError):
        task(unknown=1)(functions.answer.func)


def test_a_back_end_that_takes_no_async_tasks_refuses_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OrderedBackend, "supports_async_task", False)
    with pytest.raises(InvalidTaskError, match="does not support async tasks"):
        default_task_backend.validate_task(functions.note_async)


def test_what_a_task_raises_is_its_error_and_its_traceback(hand: Hand, user: User) -> None:
    result = functions.fail_with_an_error_in_its_error.using(user=user).enqueue()
    hand.settle()
    failed = refreshed(result)
    assert (failed.status, failed.is_finished) == (TaskResultStatus.FAILED, True)
    assert failed.started_at <= failed.last_attempted_at <= failed.finished_at
    assert failed.errors[0].exception_class is ValueError
    assert "ValueError: This task failed" in failed.errors[0].traceback


def test_an_errors_class_is_looked_for_when_it_is_asked_for() -> None:
    with pytest.raises(ValueError, match=r"'subprocess\.run' does not reference a valid exception"):
        _ = TaskError(exception_class_path="subprocess.run", traceback="").exception_class
    with pytest.raises(ImportError):
        _ = TaskError(exception_class_path="does.not.exist", traceback="").exception_class


def test_a_context_has_the_result_and_counts_from_one(hand: Hand, user: User) -> None:
    result = functions.tell_context.using(user=user).enqueue()
    hand.settle()
    assert refreshed(result).return_value == [result.id, 1]


def test_the_log_of_django_tasks_tells_each_step(
    hand: Hand, user: User, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    logger = logging.getLogger("django_tasks")
    monkeypatch.setattr(logger, "propagate", True)
    with caplog.at_level(logging.DEBUG, "django_tasks"):
        fine = functions.answer.using(user=user).enqueue()
        wrong = functions.refuse.using(user=user).enqueue()
        hand.settle()
    lines = [record.getMessage() for record in caplog.records if record.name == "django_tasks"]
    for result, last in ((fine, "state=SUCCESSFUL"), (wrong, "state=FAILED")):
        own = [line for line in lines if result.id in line]
        assert len(own) == 3
        assert "enqueued" in own[0]
        assert "state=RUNNING" in own[1]
        assert last in own[2]


def test_what_may_begin_later_waits_until_then(hand: Hand, user: User) -> None:
    soon = timezone.now() + timedelta(seconds=0.5)
    later = functions.answer.using(user=user, run_after=soon).enqueue()
    now = functions.answer.using(user=user).enqueue()

    def done() -> list[bool]:
        hand.dispatch()
        hand.work()
        return [refreshed(each).is_finished for each in (later, now)]

    assert done() == [False, True]
    until(lambda: done() == [True, True])
    assert refreshed(later).started_at >= soon
