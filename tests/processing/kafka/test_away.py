"""PostgreSQL goes away between what is committed and what comes next."""

from uuid import UUID

import pytest
from django.conf import settings
from django.db import OperationalError

from accounts.models import User
from processing.kafka.group import gone
from queues.models import Request
from tests.processing.crew import new_user, requests_of
from tests.processing.kafka.brokers import Broker, event
from tests.processing.kafka.conftest import Ingest


def test_a_postgresql_that_goes_away_after_a_commit_leaves_no_offset_behind(
    mock: Broker, ingest: Ingest, ada: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic, away = mock.topic(), iter([True])

    def gone_once_known(users: set[UUID]) -> set[UUID]:
        if next(away, False):
            raise OperationalError("the connection is lost")
        return gone(users)

    monkeypatch.setattr("processing.kafka.ingester.gone", gone_once_known)
    monkeypatch.setattr("processing.kafka.ingester.AWAY_SECONDS", 0.01)
    monkeypatch.setattr(settings.ENV, "waiting_limit", 1)
    for number in range(3):
        mock.send(topic, event(number), key=ada.username)
    mock.send(topic, event(3), key=new_user().username)
    mock.flush()
    ingest(mock, topic, lambda: Request.objects.count() == 2)
    monkeypatch.setattr(settings.ENV, "waiting_limit", 100)
    ingest(mock, topic, lambda: mock.committed(topic, f"{topic}-readers") == 4, seconds=20)
    assert [request.payload for request in requests_of(ada)] == list(range(3))
