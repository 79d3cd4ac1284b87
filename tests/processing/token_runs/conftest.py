"""Five users whose queues one token names."""

import pytest

from accounts.models import User
from processing.broker import tokens as broker
from processing.worker.token_run import TokenRun
from tests.processing.crew import Hand, new_user, queue_of, submit


@pytest.fixture
def five(hand: Hand, fine: None) -> list[User]:
    """Users with a request each that RabbitMQ has, and no tokens."""
    users = [new_user() for _ in range(5)]
    for user in users:
        submit(user, "fine")
    hand.dispatch()
    hand.wire.purge(broker.TOKEN_QUEUE)
    return users


@pytest.fixture
def undisturbed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The watch gives nothing back, however slow a busy machine is."""
    monkeypatch.setattr(TokenRun, "_record_beside", lambda *_: None)
    monkeypatch.setattr(TokenRun, "_ahead", lambda *_: None)


def ids_of(users: list[User]) -> list[int]:
    return [queue_of(user).id for user in users]


def done(users: list[User]) -> list[int]:
    return [queue_of(user).done_seq for user in users]
