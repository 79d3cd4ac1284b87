"""What the result of a task says, and the signals: as Django's own back ends promise."""

from datetime import datetime
from typing import Any
from uuid import uuid4

import pytest
from django_tasks import TaskResultStatus, default_task_backend
from django_tasks.exceptions import TaskResultDoesNotExist
from django_tasks.signals import task_finished, task_started

import queues
from accounts.models import User
from processing.results import InvalidResult
from tests.processing.crew import Hand, new_user, requests_of
from tests.processing.tasks import functions
from tests.processing.tasks.conftest import refreshed


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
    results = [each.using(user=user).enqueue() for each in (functions.return_a_function, functions.return_nan)]
    hand.settle()
    for result in results:
        failed = refreshed(result)
        assert ([error.exception_class for error in failed.errors], failed.attempts) == ([InvalidResult], 1)
    assert functions.CALLS == [("returned",)], "another attempt would only repeat what it did"
    with pytest.raises(TypeError, match="Unsupported type"):
        functions.note.using(user=user).enqueue(datetime(2026, 1, 1))  # noqa: DTZ001
    assert len(requests_of(user)) == 2


def test_signals_are_sent_when_it_starts_and_ends(hand: Hand, user: User) -> None:
    told: list[tuple[str, TaskResultStatus, int]] = []

    def receive(signal: Any, task_result: Any, **_: Any) -> None:
        told.append(("started" if signal is task_started else "finished", task_result.status, task_result.attempts))

    for signal in (task_started, task_finished):
        signal.connect(receive)
    try:
        for each in (functions.fail, functions.refuse, functions.return_nan):
            each.using(user=user).enqueue()
            hand.settle()
    finally:
        for signal in (task_started, task_finished):
            signal.disconnect(receive)
    running, failed = TaskResultStatus.RUNNING, TaskResultStatus.FAILED
    no_other_attempt = [("started", running, 1), ("finished", failed, 1)]
    assert told == [
        *(("started", running, number) for number in (1, 2, 3)),
        ("finished", failed, 3),
        *no_other_attempt,
        *no_other_attempt,
    ]


def test_a_context_tells_when_it_was_enqueued_and_began(hand: Hand, user: User) -> None:
    result = functions.tell_times.using(user=user).enqueue()
    hand.settle()
    done = refreshed(result)
    enqueued, began, again = map(float, done.return_value)
    assert (enqueued, began) == (done.enqueued_at.timestamp(), done.started_at.timestamp())
    assert again > began


@pytest.mark.django_db
def test_a_result_that_is_not_there_is_told() -> None:
    for id_ in (str(uuid4()), "123", None):
        with pytest.raises(TaskResultDoesNotExist):
            default_task_backend.get_result(id_)  # type: ignore[arg-type]
    user = new_user()
    gone = {"task": "tests.nothing.there", "arguments": [], "keywords": {}}
    for other in (
        queues.submit(user, "demo.echo", 1),
        queues.submit(user, "task.default", gone, check_permission=False),
    ):
        with pytest.raises(TaskResultDoesNotExist):
            default_task_backend.get_result(str(other.id))
