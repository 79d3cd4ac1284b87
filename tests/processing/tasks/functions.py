"""Tasks that the tests enqueue."""

import asyncio
from typing import Any

from django_tasks import TaskContext, task


class Broken(Exception):
    pass


CALLS: list[tuple[Any, ...]] = []


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
def leave() -> None:
    raise SystemExit("as asked for")


@task
def return_a_function() -> Any:
    return lambda: True


@task(takes_context=True)
def fail_twice(context: TaskContext) -> Any:
    if context.attempt < 3:
        raise Broken
    return [context.attempt, context.task_result.id]


@task
async def never_end() -> None:
    await asyncio.sleep(300)


def no_task() -> None:
    CALLS.append(("no task",))
