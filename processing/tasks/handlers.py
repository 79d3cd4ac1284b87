"""Runs a task: a request of the kind `task.<alias>`, which only our own code may submit.

Its version says how: `def` tasks are version PLAIN, in a worker's thread; `async def` tasks version ASYNC, on the
process's event loop.
"""

import asyncio
import inspect
from collections.abc import Callable
from typing import Any

from asgiref.sync import sync_to_async
from django.db import connections
from django_tasks.base import TaskContext
from django_tasks.signals import task_finished, task_started
from django_tasks.utils import normalize_json
from pydantic import BaseModel

from accounts.models import User
from processing.coroutines import wait_for
from processing.handlers import HandlerRequest, Reject, TimeLimitExceeded, handler
from processing.results import InvalidResult, as_json
from processing.tasks import results
from processing.tasks.policy import ASYNC, OF_KIND, PLAIN, kind_of, ours
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
    call = Call(request, payload)
    task_started.send(**call.signal_arguments)
    try:
        returned = call.begin()
        call.succeed(wait_for(returned) if inspect.iscoroutine(returned) else returned)
    except BaseException as error:
        if call.fail(error):
            task_finished.send(**call.signal_arguments)
        raise
    task_finished.send(**call.signal_arguments)
    return call.value


async def run_async(request: HandlerRequest, payload: TaskPayload) -> Any:
    """The same on the event loop."""
    call = await sync_to_async(Call)(request, payload)
    await task_started.asend(**call.signal_arguments)
    try:
        # It was `async def` when it was enqueued; a later release may have made it a `def`, which would block the loop.
        call.succeed(await call.begin() if call.is_async else await to_its_end(call.begin))
    except BaseException as error:
        # The loop ends with that what overruns its time limit.
        if call.fail(TimeLimitExceeded() if isinstance(error, asyncio.CancelledError) else error):
            await task_finished.asend(**call.signal_arguments)
        raise
    await task_finished.asend(**call.signal_arguments)
    return call.value


async def to_its_end(function: Callable[[], Any]) -> Any:
    """What it returns, called in a thread. A time limit ends it no sooner: it would go on beside the next one."""

    def call() -> Any:
        try:
            return function()
        finally:
            connections.close_all()

    running = asyncio.ensure_future(sync_to_async(call, thread_sensitive=False)())
    cancelled: asyncio.CancelledError | None = None
    while not running.done():
        try:
            await asyncio.wait([running])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled
    return running.result()


class Call:
    """One attempt of a task. Raises NoSuchTask."""

    def __init__(self, request: HandlerRequest, payload: TaskPayload) -> None:
        alias = request.kind.removeprefix(kind_of(""))
        self.request, self.payload = request, payload
        self.task = results.task_at(payload.task, alias, request.user_id)
        self.is_async = inspect.iscoroutinefunction(self.task.func)
        self.result = results.running(self.task, request, payload.arguments, payload.keywords)
        self.value: Any = None

    @property
    def signal_arguments(self) -> dict[str, Any]:
        """What receivers of the signals are given."""
        return {"sender": type(self.task.get_backend()), "task_result": self.result}

    def begin(self) -> Any:
        """Call the function: what it returns, or its coroutine."""
        context = [TaskContext(task_result=self.result)] if self.task.takes_context else []
        return self.task.func(*context, *self.payload.arguments, **self.payload.keywords)

    def succeed(self, returned: Any) -> None:
        """It returned that. Raises InvalidResult."""
        self.value = plain(returned)
        results.succeed(self.result, self.value)

    def fail(self, error: BaseException) -> bool:
        """It raised that; whether there is no other attempt."""
        most = kinds.find(self.request.kind, self.request.version).max_attempts
        final = isinstance(error, Reject | InvalidResult) or self.request.attempt >= most
        if final:
            results.fail(self.result, error)
        return final


for _alias, _options in ours().items():
    _of_kind = {name: value for name, value in _options.items() if name in OF_KIND}
    for _version, _run in ((PLAIN, run), (ASYNC, run_async)):
        handler(
            kind_of(_alias),
            version=_version,
            schema=TaskPayload,
            permission=nobody,
            description="A task of Django's.",
            **_of_kind,
        )(_run)
