"""Kinds that the tests run. They note in a journal when an attempt began and ended, on this machine's one clock."""

import asyncio
import ctypes
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from processing import handlers
from processing.handlers import HandlerRequest
from queues import kinds

SCRIPTS: dict[str, Callable[[HandlerRequest], Any]] = {}  # what "test.script" and its kin do, by name


def note(path: str, what: str, request: HandlerRequest) -> None:
    """One line, written at once: a process that is killed afterwards has written it all the same."""
    line = f"{what} {request.user_id} {request.sequence} {request.attempt} {time.monotonic_ns()} {os.getpid()}\n"
    journal = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(journal, line.encode())
    finally:
        os.close(journal)


def write_journal(request: HandlerRequest, payload: Any) -> int:
    note(payload["journal"], "begin", request)
    time.sleep(payload["ms"] / 1000)
    if request.attempt <= payload["fails"]:
        note(payload["journal"], "fail", request)
        raise RuntimeError("as asked for")
    note(payload["journal"], "end", request)
    return request.sequence


def run_script(request: HandlerRequest, payload: Any) -> Any:
    return SCRIPTS[payload](request)


async def write_journal_on_the_loop(request: HandlerRequest, payload: Any) -> int:
    note(payload["journal"], "begin", request)
    await asyncio.sleep(payload["ms"] / 1000)
    note(payload["journal"], "end", request)
    return request.sequence


async def run_script_on_the_loop(request: HandlerRequest, payload: Any) -> Any:
    return await SCRIPTS[payload](request)


def end_process(request: HandlerRequest, payload: Any) -> None:
    """In the middle of the handler, as `payload` says."""
    if payload == "segmentation fault":
        ctypes.string_at(0)
    if payload == "out of memory":
        os.kill(os.getpid(), signal.SIGKILL)  # what the kernel does to the largest
    os._exit(1)


@contextmanager
def registered() -> Iterator[None]:
    """The tests' kinds, for a while."""
    with kept():
        _register()
        yield


def _register() -> None:
    quick: dict[str, Any] = {"backoff": 0.02, "backoff_cap": 0.1}
    handlers.handler("test.journal", **quick)(write_journal)
    handlers.handler("test.script", **quick)(run_script)
    handlers.handler("test.once", max_attempts=1)(run_script)
    handlers.handler("test.block", max_attempts=1, on_failure="block")(run_script)
    handlers.handler("test.atomic", atomic=True, **quick)(run_script)
    handlers.handler("test.limited", time_limit=0.2, **quick)(run_script)
    handlers.handler("test.async", **quick)(run_script_on_the_loop)
    handlers.handler("test.async.limited", time_limit=0.2, **quick)(run_script_on_the_loop)
    handlers.handler("test.async.journal", **quick)(write_journal_on_the_loop)
    handlers.handler("test.gone", **quick)(run_script)
    handlers.handler("test.poison", **quick)(end_process)
    handlers.handler("test.patient", max_attempts=10_000, backoff=0)(run_script)
    del handlers._functions["test.gone", 1]


@contextmanager
def kept() -> Iterator[None]:
    """What is declared in the block is forgotten after it."""
    before = dict(kinds._kinds), dict(kinds._newest), dict(handlers._functions)
    try:
        yield
    finally:
        for registry, content in zip((kinds._kinds, kinds._newest, handlers._functions), before, strict=True):
            registry.clear()  # type: ignore[attr-defined]
            registry.update(content)  # type: ignore[attr-defined]
