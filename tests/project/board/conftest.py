"""The admin's first page, before an operator."""

import time
from collections.abc import Iterator

import pytest

from accounts.models import User
from queues import throughput
from queues.admin import alarms, dashboard
from queues.operations import backlog
from queues.operations.backlog import Recent
from tests.client import Client

BOARD, PAGE = "/admin/board", "/admin/"


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing kept from another test."""
    monkeypatch.setattr(backlog, "recent", Recent())
    for kept in ("newest_failures", "latencies", "workers"):
        monkeypatch.setattr(dashboard, kept, dashboard.Shared(0.0, getattr(dashboard, kept)._measure))
    monkeypatch.setattr(dashboard, "checks", lambda: dict.fromkeys(alarms.SERVERS, "ok"))


@pytest.fixture
def operator() -> Client:
    client = Client()
    client.force_login(User.objects.create_superuser("operator"))
    return client


@pytest.fixture
def clean_pace() -> Iterator[None]:
    """An hour in which nothing happened."""
    throughput.tally.flush()
    _forget()
    yield
    throughput.tally.flush()
    _forget()


def _forget() -> None:
    from project.redis import call

    minute = int(time.time() // 60)
    for one in range(minute - throughput.MINUTES, minute + 2):
        call("DEL", throughput._key(one))
