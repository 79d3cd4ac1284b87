from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from django.conf import settings

from accounts.models import User
from processing.http_call import transport
from processing.webhooks import owning
from processing.webhooks.delivery import turn
from processing.webhooks.delivery.deliverer import Deliverer
from processing.webhooks.models import CHOSEN, Webhook
from tests.processing.crew import new_user
from tests.processing.webhooks.receiver import Receiver, make_authority, receiving


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_authority(tmp_path_factory.mktemp("authority") / "receiver.pem")


@pytest.fixture(autouse=True)
def _trusted(authority: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority))
    monkeypatch.setattr(settings.ENV, "webhook_allow", "127.0.0.1")
    transport.tls.cache_clear()
    yield
    transport.tls.cache_clear()


@pytest.fixture
def receiver(authority: Path) -> Iterator[Receiver]:
    with receiving(authority) as receiver:
        yield receiver


@pytest.fixture
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turn, "FIRST_DELAY", 0.05)
    monkeypatch.setattr(turn, "LONGEST_DELAY", 0.1)


@pytest.fixture
def deliverer(transactional_db: None) -> Iterator[Deliverer]:
    """Moved by the test's own thread, round by round."""
    deliverer = Deliverer(8)
    yield deliverer
    deliverer._over.set()
    deliverer._senders.shutdown()


@pytest.fixture
def deliver(deliverer: Deliverer) -> Callable[..., None]:
    """Rounds until something is so."""

    def rounds(so: Callable[[], object], what: str = "it is delivered", seconds: float = 20) -> None:
        import time

        deadline = time.monotonic() + seconds
        while not so():
            assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
            deliverer.step()

    return rounds


@pytest.fixture
def user(transactional_db: None) -> User:
    return new_user()


@pytest.fixture
def hook(receiver: Receiver) -> Callable[..., Webhook]:
    def make(user: User, path: str = "/", events: tuple[str, ...] = CHOSEN) -> Webhook:
        return owning.create(user.id, receiver.at(path), events, enabled=True)

    return make
