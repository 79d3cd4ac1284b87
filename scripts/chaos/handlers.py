"""The kinds that chaos asks for. Each run writes down when it began and ended, and its result names the run."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from django.db import connection
from pydantic import BaseModel

from processing.handlers import HandlerRequest, Reject, handler
from processing.worker.attempt import Attempt
from scripts.chaos import journal


class Task(BaseModel):
    """How a run is to go; `failures` and `exits` are the first attempts that do so."""

    ms: float = 0
    failures: int = 0
    exits: int = 0


@contextmanager
def noted(request: HandlerRequest) -> Iterator[dict[str, str]]:
    """Notes the run around the block; gives the result that names it."""
    about = (fence(), request.user_id, request.sequence, request.attempt, request.id, request.kind)
    began = journal.note("begin", *about)
    how = "error"
    try:
        yield {"run": f"{os.getpid()}@{began:.9f}", "request": str(request.id)}
        how = "ok"
    except SystemExit:
        how = "exit"
        raise
    finally:
        journal.note(how, *about)
        if how == "exit":
            os._exit(9)


def fence() -> int:
    """The fence of the lease that we run under: no handler is told, so this one looks up its caller."""
    frame = sys._getframe()
    while frame.f_back is not None:
        frame = frame.f_back
        attempt = frame.f_locals.get("self")
        if isinstance(attempt, Attempt):
            return attempt.turn.lease.fence
    raise LookupError("a handler runs outside of a turn")


def perform(request: HandlerRequest, task: Task) -> dict[str, str]:
    with noted(request) as result:
        if task.ms:
            time.sleep(task.ms / 1000)
        if request.attempt <= task.exits:
            raise SystemExit
        if request.attempt <= task.failures:
            raise RuntimeError(f"attempt {request.attempt} fails, as asked for")
    return result


MANY = 50  # a run that a fault cuts short counts as an attempt: so many that no honest request runs out of them

handler("chaos.work", schema=Task, max_attempts=MANY, backoff=0.05, backoff_cap=0.3)(perform)
handler("chaos.poison", schema=Task, max_attempts=3, backoff=0.05, backoff_cap=0.3)(perform)
handler("chaos.block", schema=Task, max_attempts=1, on_failure="block")(perform)
handler("chaos.hang", schema=Task, max_attempts=1, time_limit=0.3)(perform)


@handler("chaos.atomic", schema=Task, atomic=True, max_attempts=MANY, backoff=0.05, backoff_cap=0.3)
def write(request: HandlerRequest, task: Task) -> dict[str, str]:
    """Its own row is written exactly once, however often it runs."""
    with noted(request) as result:
        with connection.cursor() as cursor:
            cursor.execute("INSERT INTO chaos_effect VALUES (%s, %s)", [request.id, request.attempt])
        time.sleep(task.ms / 1000)
    return result


@handler("chaos.overtime", schema=Task, max_attempts=2, time_limit=0.3, backoff=0.05)
def overrun(request: HandlerRequest, task: Task) -> dict[str, str]:
    with noted(request) as result:
        while True:
            time.sleep(0.01)
    return result


@handler("chaos.reject", schema=Task)
def reject(request: HandlerRequest, task: Task) -> dict[str, str]:
    with noted(request):
        raise Reject("as asked for")
