"""A place to run requests in: the tests' own kinds, an empty token queue, and a watch that ends with the test."""

import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings

from processing.broker import tokens
from processing.handlers import HandlerRequest
from processing.worker import drain, paces
from processing.worker.watchdog import Watchdog
from queues.signals import FinishedRequest, request_finished
from tests.processing import kinds
from tests.processing.crew import Hand, Wire
from tests.processing.journal import Journal
from tests.processing.silence import SilentQueues

Script = Callable[[Callable[[HandlerRequest], Any]], Callable[[HandlerRequest], Any]]


@pytest.fixture(autouse=True, scope="package")
def _kinds() -> Iterator[None]:
    with kinds.registered():
        yield


@pytest.fixture
def silence(monkeypatch: pytest.MonkeyPatch) -> Iterator[SilentQueues]:
    """RabbitMQ is reached through a place that can hold back what it says."""
    with SilentQueues(settings.ENV.rabbitmq_url) as silence:
        monkeypatch.setattr(settings.ENV, "rabbitmq_url", silence.url)
        yield silence


@pytest.fixture(autouse=True)
def _no_scripts() -> Iterator[None]:
    yield
    kinds.SCRIPTS.clear()


@pytest.fixture
def script() -> Script:
    """Decorates what a handler of this test does; its name is the payload that asks for it."""

    def declare(function: Callable[[HandlerRequest], Any]) -> Callable[[HandlerRequest], Any]:
        kinds.SCRIPTS[function.__name__] = function
        return function

    return declare


@pytest.fixture
def fine(script: Script) -> None:
    """A handler that succeeds at once, for the payload "fine"."""

    @script
    def fine(request: HandlerRequest) -> int:
        return 1


@pytest.fixture
def ran(script: Script) -> list[int]:
    """The sequence numbers that "note" was run with."""
    ran: list[int] = []

    @script
    def note(request: HandlerRequest) -> None:
        ran.append(request.sequence)

    return ran


@pytest.fixture
def wire() -> Iterator[Wire]:
    wire = Wire()
    name = tokens.token_queue()
    wire.open().queue_declare(name, durable=True, arguments=tokens.arguments_of(name))
    wire.purge(name)
    yield wire
    wire.close()


@pytest.fixture
def watch(transactional_db: None, monkeypatch: pytest.MonkeyPatch, wire: Wire) -> Iterator[Watchdog]:
    """A worker process's watchman, for the workers that the test runs in threads. It has run no handler yet."""
    watch = Watchdog()
    monkeypatch.setattr(paces, "_paces", {})
    for module in tuple(sys.modules.values()):
        if getattr(module, "watch", None) is drain.watch and module is not drain:
            monkeypatch.setattr(module, "watch", watch)
    monkeypatch.setattr(drain, "watch", watch)
    watch.start(threading.Event())
    yield watch
    watch.stop(0)


@pytest.fixture
def hand(watch: Watchdog) -> Iterator[Hand]:
    hand = Hand()
    yield hand
    hand.close()


@pytest.fixture
def finished() -> Iterator[list[FinishedRequest]]:
    found: list[FinishedRequest] = []

    def receive(finished: FinishedRequest, **_: Any) -> None:
        found.append(finished)

    request_finished.connect(receive)
    yield found
    request_finished.disconnect(receive)


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "journal")
