"""Tasks that the tests enqueue."""

import asyncio
from typing import Any

from django_tasks import TaskContext, task

from processing.handlers import Reject


class Broken(Exception):
    pass


CALLS: list[tuple[Any, ...]] = []
gate: Any = None  # what `wait_at_gate` waits at


@task
def note(*args: Any, **kwargs: Any) -> Any:
    CALLS.append((args, kwargs))
    return [list(args), kwargs]


@task
async def note_async(value: int) -> int:
    await asyncio.sleep(0)
    return value


@task
def fail() -> None:
    raise Broken("as asked for")


@task
def fail_with_a_value() -> None:
    raise ValueError("as asked for")


@task
def fail_with_an_error_in_its_error() -> None:
    raise ValueError(ValueError("This task failed"))


@task()
def answer() -> int:
    return 42


@task(takes_context=True)
def tell_context(context: TaskContext) -> list[Any]:
    return [context.task_result.id, context.attempt]


@task
def leave() -> None:
    raise SystemExit("as asked for")


@task
def return_a_function() -> Any:
    return lambda: True


@task
def return_nan() -> float:
    CALLS.append(("returned",))
    return float("nan")


@task
def refuse() -> None:
    raise Reject("as asked for")


@task(takes_context=True)
def tell_times(context: TaskContext) -> list[str]:
    if context.attempt < 2:
        raise Broken
    result = context.task_result
    return [str(at.timestamp()) for at in (result.enqueued_at, result.started_at, result.last_attempted_at) if at]


@task(takes_context=True)
def fail_twice(context: TaskContext) -> Any:
    if context.attempt < 3:
        raise Broken
    return [context.attempt, context.task_result.id]


@task(takes_context=True)
async def fail_twice_async(context: TaskContext) -> Any:
    await asyncio.sleep(0)
    if context.attempt < 3:
        raise Broken
    return [context.attempt, context.task_result.id]


@task
async def wait_at_gate() -> int:
    return int(await gate.wait())


@task
async def never_end() -> None:
    await asyncio.sleep(300)


def no_task() -> None:
    CALLS.append(("no task",))
