"""A request as the result of a task."""

import builtins
import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from django.utils import timezone
from django.utils.module_loading import import_string
from django_tasks.base import Task, TaskError, TaskResult, TaskResultStatus
from django_tasks.utils import get_exception_traceback, get_module_path

from processing.handlers import HandlerRequest, NoHandler
from queues.models import Attempt, Request
from queues.states import AttemptOutcome, Status

STATUS = {
    Status.RUNNING: TaskResultStatus.RUNNING,
    Status.SUCCEEDED: TaskResultStatus.SUCCESSFUL,
    Status.FAILED: TaskResultStatus.FAILED,
    Status.CANCELLED: TaskResultStatus.FAILED,
    Status.EXPIRED: TaskResultStatus.FAILED,
}  # any other is READY: it is to be run, or run again
FINE = (AttemptOutcome.SUCCEEDED,)


class NoSuchTask(NoHandler):
    """This code has no task at that path, or cannot import it: a deployment may be under way. The request waits."""


def task_at(path: str, alias: str, user_id: UUID, run_after: datetime | None = None) -> Any:
    """The task whose function is at that path. Raises NoSuchTask."""
    try:
        found = import_string(path)
    except ImportError as why:
        raise NoSuchTask(f"There is no task {path!r} here: {why}") from why
    if not isinstance(found, Task):
        raise NoSuchTask(f"{path!r} is not a task.")
    return found.using(backend=alias, user=user_id, run_after=run_after)  # type: ignore[call-arg]  # OrderedTask's


def enqueued(task: Any, id_: UUID, at: datetime, args: Sequence[Any], kwargs: dict[str, Any]) -> "TaskResult[Any]":
    """Of a task that was just accepted."""
    return TaskResult(
        task=task,
        id=str(id_),
        status=TaskResultStatus.READY,
        enqueued_at=at,
        started_at=None,
        finished_at=None,
        last_attempted_at=None,
        args=list(args),
        kwargs=kwargs,
        backend=task.backend,
        errors=[],
        worker_ids=[],
    )


def running(task: Any, request: HandlerRequest, args: list[Any], kwargs: dict[str, Any]) -> "TaskResult[Any]":
    """Of a task whose function is about to be called."""
    now = timezone.now()
    times = Request.objects.filter(id=request.id).values_list("created_at", "started_at").first()
    accepted, began = times or (now, None)  # a test that calls it stores nothing
    result = enqueued(task, request.id, accepted, args, kwargs)
    _set(result, status=TaskResultStatus.RUNNING, started_at=began or now, last_attempted_at=now)
    _set(result, worker_ids=_workers(request.attempt))
    return result


def succeed(result: "TaskResult[Any]", value: Any) -> None:
    _set(result, status=TaskResultStatus.SUCCESSFUL, finished_at=timezone.now(), _return_value=value)


def fail(result: "TaskResult[Any]", error: BaseException) -> None:
    told = TaskError(exception_class_path=get_module_path(type(error)), traceback=get_exception_traceback(error))
    _set(result, status=TaskResultStatus.FAILED, finished_at=timezone.now(), errors=[told])


def stored(request: Request, alias: str) -> "TaskResult[Any]":
    """Of a task as PostgreSQL has it. Raises NoSuchTask."""
    task = task_at(request.payload["task"], alias, request.queue.user_id, request.not_before)
    result = enqueued(task, request.id, request.created_at, request.payload["arguments"], request.payload["keywords"])
    attempts = list(request.attempts.all())
    status = request.status_now
    began = attempts[-1].started_at if attempts else request.started
    _set(
        result,
        status=STATUS.get(status, TaskResultStatus.READY),
        started_at=request.started,
        finished_at=request.finished_at,
        last_attempted_at=request.queue.claimed_at if status == Status.RUNNING else began,
        worker_ids=_workers(request.attempt_now),
        errors=[_error(attempt) for attempt in attempts if attempt.outcome not in FINE and attempt.error],
        _return_value=request.result if status == Status.SUCCEEDED else None,
    )
    return result


def _workers(attempts: int) -> list[str]:
    """Which worker ran an attempt is not kept; how many there were is."""
    return [f"attempt {number}" for number in range(1, attempts + 1)]


def _error(attempt: Attempt) -> TaskError:
    told: dict[str, Any] = attempt.error or {}
    name, text = told["type"], attempt.traceback or f"{told['type']}: {told['message']}\n"
    return TaskError(exception_class_path=_path(name, text), traceback=text)


def _path(name: str, text: str) -> str:
    """Where the class of that name is: a traceback's last line has it in full, unless it is one of Python's own."""
    if isinstance(getattr(builtins, name, None), type):
        return f"builtins.{name}"
    found = re.findall(rf"^((?:\w+\.)+{re.escape(name)})(?::|$)", text, re.MULTILINE)
    return str(found[-1]) if found else f"processing.handlers.{name}"


def _set(result: "TaskResult[Any]", **fields: Any) -> None:
    for name, value in fields.items():
        object.__setattr__(result, name, value)  # as the package itself does: results are frozen
