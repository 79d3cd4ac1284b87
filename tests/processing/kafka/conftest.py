from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import orjson
import pytest
from django.conf import settings

from accounts.models import User
from processing.kafka.ingester import Ingester
from tests.processing.crew import new_user
from tests.processing.kafka.brokers import QUICK, Broker, mesh, mock_cluster
from tests.waiting import until

Ingest = Callable[..., Ingester]


@pytest.fixture(scope="session", params=["mock", "mesh"])
def any_broker(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    with mock_cluster() if request.param == "mock" else mesh(tmp_path_factory.mktemp("mesh")) as broker:
        yield broker


@pytest.fixture(scope="session")
def mock() -> Iterator[Broker]:
    with mock_cluster() as broker:
        yield broker


@pytest.fixture
def ada() -> User:
    return new_user()


@pytest.fixture
def ingest(monkeypatch: pytest.MonkeyPatch, transactional_db: None) -> Iterator[Ingest]:
    """Reads a topic in the test's own thread until something is so; each call goes on with the same reader."""
    begun: dict[str, Ingester] = {}

    def rounds(broker: Broker, topic: str, so: Callable[[], Any], group: str = "", seconds: float = 40) -> Ingester:
        group = group or f"{topic}-readers"
        if group not in begun:
            monkeypatch.setattr(settings.ENV, "kafka_brokers", broker.address)
            monkeypatch.setattr(settings.ENV, "kafka_group", group)
            monkeypatch.setattr(settings.ENV, "kafka_config", orjson.dumps(QUICK).decode())
            begun[group] = Ingester([topic])
            begun[group].subscribe()
        until(lambda: begun[group].step() or so(), seconds)
        return begun[group]

    yield rounds
    for ingester in begun.values():
        ingester.close()


@pytest.fixture
def other_group() -> str:
    return uuid4().hex
