"""What `async def` handlers run on: one event loop, in one thread of the process."""

import asyncio
import inspect
import sys
import threading
from collections.abc import Callable, Coroutine, Generator
from concurrent.futures import Future
from contextvars import ContextVar, copy_context
from functools import cache
from types import FrameType
from typing import Any, TypeVar, cast
from uuid import UUID
from weakref import WeakKeyDictionary

import structlog
from asgiref.sync import sync_to_async
from django.db import DEFAULT_DB_ALIAS, connections
from django.db import Error as DatabaseError

from project.postgresql.base import DatabaseWrapper
from project.postgresql.limits import of_async_handlers

log = structlog.get_logger()
T = TypeVar("T")

LOOK_SECONDS = 0.05  # a thread that waits in a system call is not interrupted: it looks up so often

_beginning = threading.Lock()
_loop: asyncio.AbstractEventLoop | None = None
_thread: threading.Thread | None = None
_request: ContextVar[UUID | None] = ContextVar("request", default=None)  # whose work this is ..
_requests: WeakKeyDictionary[asyncio.Task[Any], UUID] = WeakKeyDictionary()  # .. and that of a task


@cache
def is_coroutine_function(function: Callable[..., Any]) -> bool:
    """Whether it is an `async def`, so that calling it runs nothing of it yet."""
    return any(map(inspect.iscoroutinefunction, (function, type(function).__call__)))


def wait_for(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run it on the process's event loop; its result. Raises what it raises.

    Who interrupts this thread with an exception, as a time limit does, cancels it. That exception is raised once the
    coroutine has really ended: nothing of it goes on beside what comes next.
    """
    running = _Running(coroutine)
    try:
        running.begin()
        running.wait()
    except BaseException as interrupted:
        running.cancel()
        running.wait()
        if running.error is not None:  # tell where it stood, not where its thread waited
            interrupted.__traceback__ = running.error.__traceback__
        raise
    if running.error is not None:
        raise running.error
    return running.result


class _Running:
    """One coroutine. An exception may meet its thread at any instruction, so the loop's thread alone changes it."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        self.result: Any = None
        self.error: BaseException | None = None
        self._coroutine = coroutine
        self._loop = event_loop()
        self._task: asyncio.Task[tuple[Any, BaseException | None]] | None = None
        self._ended = False
        self._wakes = threading.Lock()  # free once it has ended
        self._wakes.acquire()

    def begin(self) -> None:
        self._loop.call_soon_threadsafe(self._begin, context=copy_context())  # the log's and the tracer's words

    def cancel(self) -> None:
        self._loop.call_soon_threadsafe(self._cancel)

    def wait(self) -> None:
        while not self._ended:
            self._wakes.acquire(timeout=LOOK_SECONDS)

    # In the loop's thread.

    def _begin(self) -> None:
        if not self._ended:
            self._task = self._loop.create_task(outcome(self._coroutine))
            self._task.add_done_callback(self._over)

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()
        else:  # it never began
            self._coroutine.close()
            self._end()

    def _over(self, task: asyncio.Task[tuple[Any, BaseException | None]]) -> None:
        if task.cancelled():
            self._coroutine.close()  # it may not have had its first step
            self.error = asyncio.CancelledError()
        else:
            self.result, self.error = task.result()
        self._end()

    def _end(self) -> None:
        if not self._ended:
            self._ended = True
            self._wakes.release()


async def outcome(coroutine: Coroutine[Any, Any, Any]) -> tuple[Any, BaseException | None]:
    """Its result, and what it raised: out of a task, SystemExit would end the loop."""
    try:
        return await coroutine, None
    except BaseException as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, DatabaseError):
            cause = cause.__cause__
        if cause is not None:
            await sync_to_async(_close_what_broke)()
        return None, error


# In the thread where Django runs the queries of coroutines.


def _limit_queries() -> None:
    mine = cast("DatabaseWrapper", connections[DEFAULT_DB_ALIAS])
    mine.wanted = of_async_handlers()


def _close_what_broke() -> None:
    """The next attempt connects again."""
    for each in connections.all(initialized_only=True):
        each.close_if_unusable_or_obsolete()


# The loop.


def event_loop() -> asyncio.AbstractEventLoop:
    """The process's loop; it begins with the first that asks, and ends with the process."""
    global _loop, _thread
    if _loop is None:
        with _beginning:
            if _loop is None:
                loop = asyncio.new_event_loop()
                loop.set_task_factory(_make_task)
                thread = threading.Thread(target=_run, args=[loop], name="coroutines", daemon=True)
                thread.start()
                _thread, _loop = thread, loop
    return _loop


def begin(coroutine: Coroutine[Any, Any, Any], request: UUID) -> Future[Any]:
    """Run it on the process's event loop; waits for nothing. It is the request's work, and so are tasks it makes."""
    context = copy_context()
    context.run(_request.set, request)
    return context.run(asyncio.run_coroutine_threadsafe, coroutine, event_loop())


def running_now() -> tuple[UUID | None, FrameType | None]:
    """Which request's work the loop is in just now, and where its thread stands. From any thread."""
    if _loop is None or _thread is None:
        return None, None
    task = asyncio.current_task(_loop)
    return _requests.get(task) if task is not None else None, sys._current_frames().get(_thread.ident or 0)


def _make_task(
    loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, T] | Generator[Any, None, T], **options: Any
) -> "asyncio.Task[T]":
    """A task that another one makes is the same request's work."""
    task = asyncio.Task(coroutine, loop=loop, **options)
    if (request := _request.get()) is not None:
        _requests[task] = request
    return task


def _run(loop: asyncio.AbstractEventLoop) -> None:
    loop.run_until_complete(sync_to_async(_limit_queries)())
    while True:
        try:
            loop.run_forever()
        except BaseException:  # a task that a handler left behind raised SystemExit: the others' go on
            log.exception("a task raised what ends an event loop; it goes on")
