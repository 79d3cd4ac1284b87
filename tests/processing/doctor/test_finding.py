"""`doctor` says what is wrong and what to type."""

from typing import Any
from urllib.parse import urlsplit

import pytest
from django.conf import settings
from django.db import connection

from processing.broker import tokens
from processing.broker.errors import BrokerUnavailable
from processing.broker.pointers import queue_name
from processing.broker.rabbitmq import Publisher
from processing.operations import doctor
from project.telemetry import health
from queues.management.command_base import Exit
from queues.models import Leadership, OperatorAction, Request
from tests.processing.crew import Hand, Wire, new_user, queue_of, submit
from tests.processing.doctor.conftest import faults
from tests.processing.frozen import QUEUE, frozen
from tests.queues.commands import run
from tests.waiting import until


@pytest.mark.usefixtures("fine")
def test_a_system_that_works_has_no_fault(hand: Hand) -> None:
    submit(new_user(), "fine", "fine")
    hand.settle()
    submit(new_user(), "fine")
    hand.dispatch()
    ran = run("doctor", "--all", "--json")
    assert (ran.status, faults(ran)) == (Exit.DONE, [])
    assert {row["check"] for row in ran.json} >= {"postgresql", "redis", "workers", "publish", "counters", "broker"}
    assert "2 queues agree with their rows" in ran.out
    assert not OperatorAction.objects.exists(), "looking changes nothing"


def test_what_is_away_is_said_with_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        health,
        "checks",
        lambda: {"postgresql": "ok", "migrations": "ok", "rabbitmq": "down", "redis": "down", "dispatcher": "down"},
    )
    Leadership.objects.all().delete()
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_unlock_all()")
    ran = run("doctor", "--json")
    assert ran.status == Exit.FAULTS
    found = dict(faults(ran))
    assert found["dispatcher"] == found["shards"] == "manage.py dispatch"
    assert found["workers"] == "manage.py work"
    assert "RABBITMQ_URL" in found["rabbitmq"]
    assert "redis" not in found, "without Redis all goes on"
    redis = next(row for row in ran.json if row["check"] == "redis")
    assert redis["detail"].startswith("down: ")
    assert str(urlsplit(settings.ENV.redis_url).port or "usual port") in redis["detail"]
    assert redis["detail"].endswith("it answers just now")
    monkeypatch.setattr(health, "checks", lambda: dict.fromkeys(doctor.SERVERS, "down"))
    assert len(run("doctor", "--json").json) == len(doctor.SERVERS), "without PostgreSQL nothing else can be asked"


def test_where_a_server_was_looked_for_is_told_without_its_password(monkeypatch: Any) -> None:
    several = "postgres://me:secret@one:5432,two:5433/orders?sslmode=require"
    monkeypatch.setitem(doctor.ASKED, "postgresql", (several, lambda: None))
    assert doctor.why_away("postgresql") == ": one:5432,two:5433/orders: it answers just now"
    monkeypatch.setitem(doctor.ASKED, "postgresql", ("postgres://me:secret@one/orders", lambda: None))
    assert doctor.why_away("postgresql") == ": one:its usual port/orders: it answers just now"


def test_what_is_late_blocked_or_starving_is_said() -> None:
    for state, fields in (
        ("ready", {}),
        ("blocked", {}),
        ("draining", {"lease": True}),
    ):
        user = new_user()
        submit(user, "anything")
        with connection.cursor() as cursor:
            cursor.execute(
                "UPDATE queues_userqueue SET state = %s, published_seq = 0, moved_at = now() - interval '1 hour',"
                " lease_until = CASE WHEN %s THEN now() - interval '1 hour' END WHERE user_id = %s",
                [state, bool(fields), user.id],
            )
    Request.objects.update(created_at="2020-01-01T00:00:00Z")
    rows = {row["check"]: row["grade"] for row in run("doctor", "--json").json}
    assert (rows["publish"], rows["leases"]) == ("fault", "fault")
    assert (rows["turns"], rows["blocked"]) == ("warning", "warning")


def test_a_transaction_that_slows_down_everybody_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    user = new_user()
    submit(user, "anything")

    def named() -> list[dict[str, Any]]:
        return [row for row in run("doctor", "--json").json if row["check"] == "transactions"]

    with frozen("SELECT 1"), frozen(QUEUE, queue_of(user).id), connection.cursor() as cursor:
        assert [row["grade"] for row in named()] == ["ok"], "it has just begun"
        cursor.execute("SELECT pid FROM pg_stat_activity WHERE backend_xid IS NOT NULL AND state LIKE 'idle%'")
        ((pid,),) = cursor.fetchall()
        monkeypatch.setattr(doctor, "LONG_SECONDS", 0.05)
        (row,) = until(lambda: [one for one in named() if one["grade"] == "warning"], why=named)
    assert row["detail"].startswith(f"pid {pid} (role ")
    assert "idle in transaction" in row["detail"]
    assert f"pg_terminate_backend({pid})" in row["advice"]
    assert [row["grade"] for row in named()] == ["ok"]


def test_so_many_faults_are_named_and_the_others_counted(
    hand: Hand, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "NAMED", 2)
    users = [new_user() for _ in range(4)]
    for user in users:
        submit(user, "anything", "anything")
    hand.dispatch()
    for user in users:
        wire.delete(queue_name(queue_of(user).id))
        Request.objects.filter(queue__user=user, seq=1).delete()
    ran = run("doctor", "--json", "--batch-size", "3")
    found = {check: [row["detail"] for row in ran.json if row["check"] == check] for check in ("counters", "broker")}
    assert [len(told) for told in found.values()] == [3, 3]
    assert (found["counters"][2], found["broker"][2]) == ("2 more queues", "as it seems, 2 more queues")
    assert ("broker", "manage.py rebuild_broker") in faults(ran)
    for _ in range(2):
        run("doctor", "--repair", "--yes")
    assert faults(run("doctor", "--json")) == []


def test_a_broker_that_vanishes_meanwhile_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: Any) -> Any:
        raise BrokerUnavailable("gone")

    monkeypatch.setattr(Publisher, "waiting_in", gone)
    assert [check for check, _ in faults(run("doctor", "--json"))] == ["broker"]
    monkeypatch.setattr(tokens, "declare_token_queue", gone)
    assert run("rebuild_broker", "--yes").status == Exit.SERVER_AWAY


def test_a_server_that_is_away_is_said_with_where_it_was_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused() -> None:
        raise BrokerUnavailable("connection refused")

    monkeypatch.setitem(doctor.ASKED, "rabbitmq", ("amqp://ada:secret@mq.example:5673/jobs", refused))
    monkeypatch.setattr(health, "checks", lambda: {**dict.fromkeys(doctor.SERVERS, "ok"), "rabbitmq": "timeout"})
    ran = run("doctor", "--json")
    (found,) = [row["detail"] for row in ran.json if row["check"] == "rabbitmq"]
    assert found == "timeout: mq.example:5673/jobs: connection refused"
    assert "secret" not in ran.out
