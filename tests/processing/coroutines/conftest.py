"""A process's `async def` handlers, and a gate that they wait at."""

import asyncio
from collections.abc import Iterator

import pytest

from processing.handlers import HandlerRequest
from processing.worker import drain
from processing.worker.coroutines import recording
from processing.worker.coroutines.run import CoroutineRun
from processing.worker.watchdog import Watchdog
from tests.processing.conftest import Script
from tests.waiting import until


@pytest.fixture(autouse=True)
def on_loop(watch: Watchdog, monkeypatch: pytest.MonkeyPatch) -> Iterator[CoroutineRun]:
    run = CoroutineRun(watch)
    monkeypatch.setattr(drain, "coroutines", run)
    monkeypatch.setattr(recording, "REST_SECONDS", 0.2)
    yield run
    until(lambda: run._outcomes._thread is None, why="its connection stays")


class Gate:
    """Handlers wait at it, each on an event of its own."""

    def __init__(self) -> None:
        self.waiting: dict[asyncio.Event, asyncio.AbstractEventLoop] = {}
        self.most = 0

    async def wait(self) -> int:
        mine = asyncio.Event()
        self.waiting[mine] = asyncio.get_running_loop()
        self.most = max(self.most, len(self.waiting))
        try:
            await mine.wait()
        finally:
            del self.waiting[mine]
        return 1

    def open(self) -> None:
        for event, loop in tuple(self.waiting.items()):
            loop.call_soon_threadsafe(event.set)


@pytest.fixture
def gate(script: Script) -> Iterator[Gate]:
    gate = Gate()

    @script
    async def wait(request: HandlerRequest) -> int:
        return await gate.wait()

    yield gate
    gate.open()
