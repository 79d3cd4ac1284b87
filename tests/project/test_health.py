"""/health/ready says what is missing, soon, whatever hangs."""

import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from django.conf import settings
from django.db import OperationalError
from django.utils import timezone

from accounts.models import User
from processing.broker import rabbitmq
from project.redis import RedisUnavailable
from project.telemetry import health
from queues.lifecycle.lease import WORKERS
from queues.models import Leadership, UserQueue
from queues.operations import backlog
from queues.states import QueueState, Status
from tests.accounts.people import Api, at_once
from tests.queues.rows import a_leader, request_in
from tests.waiting import until

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("nothing_cached")]


@pytest.fixture
def worker() -> Iterator[psycopg.Connection[Any]]:
    """A worker process holds its lock, and has just asked something."""
    with psycopg.connect(settings.ENV.database_url, autocommit=True) as session:
        session.execute("SELECT pg_advisory_lock(%s, 1)", [WORKERS])
        yield session


@pytest.fixture
def leader(worker: object) -> Iterator[None]:
    """Somebody leads the one shard, and somebody works."""
    a_leader()
    yield
    Leadership.objects.all().delete()


def ready() -> tuple[int, str, dict[str, str]]:
    answer = Api().get("/health/ready")
    body = answer.json()
    return answer.status_code, body["status"], {name: how for name, how in body["checks"].items() if how != "ok"}


def gone(*_: Any) -> Any:
    raise RedisUnavailable


def test_live_asks_nobody() -> None:
    answer = Api().get("/health/live")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok", "checks": {}})


def test_all_is_well(leader: None) -> None:
    assert ready() == (200, "ok", {})


def test_every_check_is_named() -> None:
    assert set(Api().get("/health/ready").json()["checks"]) == {
        "postgresql",
        "rabbitmq",
        "redis",
        "migrations",
        "dispatcher",
        "workers",
        "queues",
    }


def test_without_a_leader_it_is_degraded(worker: object) -> None:
    assert ready() == (200, "degraded", {"dispatcher": "down"})


def test_without_a_worker_it_is_degraded() -> None:
    a_leader()
    assert ready() == (200, "degraded", {"workers": "down"})
    Leadership.objects.all().delete()


def test_a_worker_that_gives_no_sign_is_none(leader: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backlog, "SILENT_SECONDS", 0.2)
    until(lambda: backlog.measure().workers == 0, 5, "its session is silent")
    assert ready() == (200, "degraded", {"workers": "down"})


def test_a_blocked_queue_and_one_that_does_not_move_are_told(leader: None, monkeypatch: pytest.MonkeyPatch) -> None:
    user = User.objects.create(username="ada")
    queue = UserQueue.objects.create(user=user, last_seq=1, published_seq=1, state=QueueState.BLOCKED)
    request_in(queue, 1, Status.RETRYING, attempt=1, created_at=timezone.now() - timedelta(seconds=60))
    assert ready() == (200, "degraded", {"queues": "down"})
    UserQueue.objects.filter(pk=queue.pk).update(state=QueueState.READY)
    monkeypatch.setattr(backlog, "STUCK_SECONDS", 0.0)
    assert not backlog.measure().moves
    monkeypatch.setattr(backlog, "STUCK_SECONDS", 3600.0)
    assert backlog.measure().moves


def test_without_redis_it_is_degraded(leader: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "check_redis", gone)
    assert ready() == (200, "degraded", {"redis": "down"})


def test_without_rabbitmq_it_is_degraded(leader: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def unavailable(timeout: float) -> None:
        raise rabbitmq.BrokerUnavailable("amqp://secret")

    monkeypatch.setattr(rabbitmq, "ping", unavailable)
    assert ready() == (200, "degraded", {"rabbitmq": "down"})


def test_without_postgresql_it_is_down(monkeypatch: pytest.MonkeyPatch) -> None:
    def unavailable() -> dict[str, str]:
        raise OperationalError("secret")

    monkeypatch.setattr(health, "migrations", unavailable)
    answer = Api().get("/health/ready")
    assert (answer.status_code, answer.json()["status"]) == (503, "down")
    assert int(answer["Retry-After"]) > 0
    assert b"secret" not in answer.content


def test_with_a_migration_missing_it_is_down(leader: None, monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = health.shipped_migrations() | {("accounts", "9999_not_applied")}
    monkeypatch.setattr(health, "shipped_migrations", lambda: shipped)
    assert ready() == (503, "down", dict.fromkeys(("migrations", "dispatcher", "workers", "queues"), "down"))


def test_one_that_hangs_holds_up_no_other(leader: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "TIMEOUT", 0.3)
    hanging = threading.Event()
    monkeypatch.setattr(rabbitmq, "ping", lambda _: hanging.wait(20))
    started = time.monotonic()
    assert ready() == (200, "degraded", {"rabbitmq": "timeout"})
    assert time.monotonic() - started < 2
    hanging.set()


def test_many_probes_at_once_cost_one_check(leader: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "CACHED", 60)
    asked = []
    monkeypatch.setattr(health, "check_redis", lambda *_: asked.append(1))
    assert set(at_once(10, lambda _: ready()[0])) == {200}
    assert len(asked) == 1


def test_it_is_looked_at_again_soon(leader: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "CACHED", 0.1)
    assert ready()[1] == "ok"
    monkeypatch.setattr(health, "check_redis", gone)
    time.sleep(0.15)
    assert ready()[1] == "degraded"
