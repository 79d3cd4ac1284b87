"""A system in which all is well."""

from collections.abc import Iterator

import pytest
from django.db import connection

from processing.operations import doctor
from project.telemetry import health
from queues.lifecycle.lease import WORKERS
from tests.queues.commands import Ran
from tests.queues.rows import a_leader


@pytest.fixture(autouse=True)
def _all_is_well(monkeypatch: pytest.MonkeyPatch, transactional_db: None) -> Iterator[None]:
    """Servers work, a dispatcher leads and a worker lives, as far as locks tell; no patience is needed."""
    found = dict.fromkeys(("postgresql", "migrations", "rabbitmq", "redis", "dispatcher"), "ok")
    monkeypatch.setattr(health, "checks", lambda: found)
    monkeypatch.setattr(doctor, "DELIVERY_SECONDS", 0.0)
    a_leader()
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_lock(%s, 1)", [WORKERS])
    yield
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_unlock_all()")


def faults(ran: Ran) -> list[tuple[str, str]]:
    return [(row["check"], row["advice"]) for row in ran.json if row["grade"] == "fault"]
