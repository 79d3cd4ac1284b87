"""A place to run requests in: the tests' own kinds, an empty token queue, and a watch that ends with the test."""

import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.db import connection

from processing.broker import tokens
from processing.handlers import HandlerRequest
from processing.worker import drain, paces
from processing.worker.watchdog import Watchdog
from queues.signals import FinishedRequest, request_finished
from tests.processing import kinds
from tests.processing.crew import Hand, Wire
from tests.processing.journal import Journal

Script = Callable[[Callable[[HandlerRequest], Any]], Callable[[HandlerRequest], Any]]


@pytest.fixture(autouse=True, scope="package")
def _kinds() -> Iterator[None]:
    with kinds.registered():
        yield


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


@pytest.fixture(autouse=True, scope="package")
def _empty_by_delete() -> Iterator[None]:
    """Django empties a database that commits by TRUNCATE, which takes a second for each test; this, a few ms."""

    def empty(*_: object, **__: object) -> None:
        with connection.cursor() as cursor:
            cursor.execute(
                "DELETE FROM kafka_event; DELETE FROM kafka_rejectedmessage;"
                " DELETE FROM webhooks_delivery; DELETE FROM webhooks_webhook;"
                " DELETE FROM queues_idempotencykey; DELETE FROM queues_attempt; DELETE FROM queues_request;"
                " DELETE FROM queues_userqueue; DELETE FROM queues_operatoraction; DELETE FROM queues_bulkaction;"
                " DELETE FROM django_admin_log; DELETE FROM queues_leadership; DELETE FROM django_session;"
                " DELETE FROM queues_permit; DELETE FROM queues_kindlimit; DELETE FROM queues_kindstart;"
                " DELETE FROM queues_tokenqueue;"
                " DELETE FROM accounts_mail; DELETE FROM accounts_invitation;"
                " DELETE FROM accounts_session; DELETE FROM accounts_user_groups;"
                " DELETE FROM accounts_user_user_permissions; DELETE FROM accounts_user"
            )

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("django.test.testcases.call_command", empty)
        yield


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
