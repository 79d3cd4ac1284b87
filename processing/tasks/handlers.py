"""Runs a task: a request of the kind `task.<alias>`, which only our own code may submit."""

import inspect
from typing import Any

from django_tasks.base import TaskContext
from django_tasks.signals import task_finished, task_started
from django_tasks.utils import normalize_json
from pydantic import BaseModel

from accounts.models import User
from processing.coroutines import wait_for
from processing.handlers import HandlerRequest, Reject, handler
from processing.results import InvalidResult, as_json
from processing.tasks import results
from processing.tasks.policy import OF_KIND, kind_of, ours
from queues import kinds


class TaskPayload(BaseModel):
    """Which function, and what it is called with."""

    task: str
    arguments: list[Any]
    keywords: dict[str, Any]


def nobody(user: User) -> bool:
    """Over the API nobody may name a function to be called."""
    return False


def plain(returned: Any) -> Any:
    """What a task returned, as it is stored. Raises InvalidResult."""
    try:
        value = normalize_json(returned)
        as_json(value)
    except (TypeError, ValueError, RecursionError) as why:
        raise InvalidResult((), str(why)) from why
    return value


def run(request: HandlerRequest, payload: TaskPayload) -> Any:
    """Call the task's function; what it returns, or raises, is the request's result or error. Raises NoSuchTask."""
    alias = request.kind.removeprefix(kind_of(""))
    task = results.task_at(payload.task, alias, request.user_id)
    result = results.running(task, request, payload.arguments, payload.keywords)
    backend = type(task.get_backend())
    task_started.send(sender=backend, task_result=result)
    context = [TaskContext(task_result=result)] if task.takes_context else []
    try:
        called = task.func(*context, *payload.arguments, **payload.keywords)
        value = plain(wait_for(called) if inspect.iscoroutine(called) else called)
    except BaseException as error:
        most = kinds.find(request.kind, request.version).max_attempts
        if isinstance(error, Reject | InvalidResult) or request.attempt >= most:
            results.fail(result, error)
            task_finished.send(sender=backend, task_result=result)
        raise
    results.succeed(result, value)
    task_finished.send(sender=backend, task_result=result)
    return value


for _alias, _options in ours().items():
    _of_kind = {name: value for name, value in _options.items() if name in OF_KIND}
    handler(kind_of(_alias), schema=TaskPayload, permission=nobody, description="A task of Django's.", **_of_kind)(run)
