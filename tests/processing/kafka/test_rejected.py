"""What no request can be made of: told by field, kept as it came, replayed; and nothing else waits for it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.db import OperationalError
from structlog.testing import capture_logs

from accounts.models import User
from processing.handlers import handler
from processing.kafka import ingester
from processing.kafka import rejected as keeping
from processing.kafka.group import resolve
from processing.kafka.models import RejectedMessage
from processing.kafka.reading import Message, Rejection, read
from processing.kafka.rejected import keep, prune
from project.environment import read_environment
from queues.enqueue import permissions
from tests.metrics import counted
from tests.processing.crew import new_user, requests_of
from tests.processing.kafka.brokers import Broker, event
from tests.processing.kafka.conftest import Ingest
from tests.processing.kinds import kept
from tests.queues.commands import run

ROOT = Path(__file__).resolve().parents[3]

pytestmark = pytest.mark.django_db(transaction=True)


def without(name: str) -> dict[str, Any]:
    value = event(1)
    del value[name]
    return value


@pytest.mark.parametrize(
    ("value", "reason", "told"),
    [
        (None, "empty", "no value"),
        (b"{", "json", "Line 1, column 2"),
        (b'{"eventId":"1","eventId":"2"}', "json", "eventId"),
        (b"\xff", "json", "UTF-8"),
        ([1], "invalid", "Send an object with eventId, timestamp, type, payload."),
        (without("eventId"), "invalid", "eventId: This field is required."),
        (without("timestamp"), "invalid", "timestamp: This field is required."),
        (without("type"), "invalid", "type: This field is required."),
        (without("payload"), "invalid", "payload: This field is required."),
        (event(1, eventId=""), "invalid", "eventId: Write a string of 1 to 255 characters."),
        (event(1, eventId=7), "invalid", "eventId: Write a string"),
        (event(1, timestamp="2026-11-28"), "invalid", "timestamp: Write milliseconds"),
        (event(1, timestamp=-1), "invalid", "timestamp: Write milliseconds"),
        (event(1, timestamp=True), "invalid", "timestamp: Write milliseconds"),
        (event(1, priority=1), "invalid", "priority: This field is not known here."),
        (event(1, type=["demo.echo"]), "invalid", "type: Write a string."),
        (event(1, type="no.such"), "invalid", "type: This kind is not known; there is"),
        (event({"steps": "many"}, type="demo.steps"), "invalid", "payload.steps:"),
        (event("x" * 70_000), "too_large", "65536 are allowed"),
    ],
)
def test_what_is_wrong_is_told_by_the_message_s_own_names(value: Any, reason: str, told: str) -> None:
    body = value if isinstance(value, bytes | None) else json.dumps(value).encode()
    with pytest.raises(Rejection) as caught:
        read(Message("requests", 0, 1, b"ada", body))
    assert caught.value.reason == reason
    assert told in caught.value.detail


@pytest.mark.parametrize("key", [None, b"", b"\xff", b"a\0b", b"x" * 300])
def test_a_message_that_names_no_user_is_rejected(key: bytes | None) -> None:
    with pytest.raises(Rejection) as caught:
        read(Message("requests", 0, 1, key, json.dumps(event(1)).encode()))
    assert (caught.value.reason, caught.value.detail) == ("user", "key: there is no user's id or name.")


def test_who_may_not_ask_for_the_kind_is_refused() -> None:
    ada, staff = new_user(), new_user()
    permissions.forget()
    with kept():
        handler("test.guarded", permission=lambda user: user.id == staff.id)(print)
        keys = [ada.username.encode(), str(staff.id).encode()]
        body = json.dumps(event(1, type="test.guarded")).encode()
        entries, refused = resolve([read(Message("requests", 0, at, key, body)) for at, key in enumerate(keys)])
    assert [entry.user_id for entry in entries] == [staff.id]
    assert [why.reason for _, why in refused] == ["forbidden"]


def test_an_id_is_never_taken_for_a_name() -> None:
    ada = new_user()
    User.objects.create(username=str(ada.id))
    (entry,), _ = resolve([read(Message("requests", 0, 1, str(ada.id).encode(), json.dumps(event(1)).encode()))])
    assert entry.user_id == ada.id


def test_what_is_rejected_is_kept_once_logged_counted_and_holds_up_nobody(
    mock: Broker, ingest: Ingest, ada: User, other_group: str, caplog: pytest.LogCaptureFixture
) -> None:
    topic = mock.topic()
    before = counted("kafka_rejected_total", reason="json"), counted("kafka_messages_total", outcome="rejected")
    mock.send(topic, b"{", key="\u00e4da", headers=[("source", b"\x00\xff"), ("empty", None)])
    mock.send(topic, event(1), key="nobody-of-this-name")
    mock.send(topic, event(2), key=ada.username)
    mock.flush()
    ingest(mock, topic, lambda: mock.committed(topic, f"{topic}-readers") == 3)
    ingest(mock, topic, lambda: mock.committed(topic, other_group) == 3, other_group)
    assert [one.payload for one in requests_of(ada)] == [2]
    first, second = RejectedMessage.objects.order_by("offset")
    assert (first.topic, first.partition, first.offset, first.reason) == (topic, 0, 0, "json")
    assert (bytes(first.key), bytes(first.value)) == ("\u00e4da".encode(), b"{")
    assert first.headers == [["source", "AP8="], ["empty", None]]
    assert (second.offset, second.reason, bool(second.event_id)) == (1, "unknown_user", True)
    after = counted("kafka_rejected_total", reason="json"), counted("kafka_messages_total", outcome="rejected")
    assert (after[0] - before[0], after[1] - before[1]) == (1, 2)


def test_what_is_too_much_to_be_kept_at_once_is_kept_in_parts(
    mock: Broker, ingest: Ingest, ada: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    def keep_one(rejected: Any) -> None:
        if len(rejected) > 1:
            raise OperationalError("memory alloc request size is too large")
        keep(rejected)

    monkeypatch.setattr(ingester, "keep", keep_one)
    monkeypatch.setattr(ingester, "AWAY_SECONDS", 0.01)
    topic = mock.topic()
    for _ in range(3):
        mock.send(topic, b"{", key=ada.username)
    mock.send(topic, event(1), key=ada.username)
    mock.flush()
    ingest(mock, topic, lambda: mock.committed(topic, f"{topic}-readers") == 4)
    assert RejectedMessage.objects.count() == 3
    assert [one.payload for one in requests_of(ada)] == [1]


def test_the_log_does_not_quote_what_was_sent() -> None:
    with capture_logs() as lines:
        keep([(Message("requests", 0, 7, None, b"{}"), Rejection("invalid", "payload.card: 4111 is no card."))])
    (line,) = [one for one in lines if one["event"] == "kafka_rejected"]
    assert (line["topic"], line["partition"], line["offset"], line["reason"]) == ("requests", 0, 7, "invalid")
    assert "4111" not in str(line)
    assert RejectedMessage.objects.get(offset=7).detail == "payload.card: 4111 is no card."


def test_rejected_messages_are_listed_and_replayed(mock: Broker, ingest: Ingest) -> None:
    topic = mock.topic()
    for number in range(3):
        mock.send(topic, event(number), key="grace")
    mock.send(topic, b"{", key="grace")
    mock.flush()
    ingest(mock, topic, lambda: RejectedMessage.objects.count() == 4)
    listed = run("kafka", "rejected", "list", "--json").json
    assert [one["reason"] for one in listed] == ["unknown_user"] * 3 + ["json"]
    assert run("kafka", "rejected", "replay", "--rejected-for", "unknown_user").status == 6
    refused = run("kafka", "rejected", "replay", "--yes")
    assert refused.status == 1
    assert "There is no active user 'grace'." in refused.out
    grace = User.objects.create(username="grace")
    assert run("kafka", "rejected", "replay", listed[0]["id"], listed[1]["id"], "--yes").status == 0
    assert run("kafka", "rejected", "replay", "--rejected-for", "unknown_user", "--yes").status == 0
    assert [one.payload for one in requests_of(grace)] == [0, 1, 2]
    assert [one["reason"] for one in run("kafka", "rejected", "list", "--json").json] == ["json"]
    assert len(run("kafka", "rejected", "list", "--all", "--json").json) == 4
    assert run("kafka", "rejected", "replay", listed[0]["id"], "--yes").status == 3
    row = RejectedMessage.objects.get(id=listed[0]["id"])
    assert row.request_id == requests_of(grace)[0].id


def test_a_replay_into_a_full_queue_is_refused_and_can_be_done_later(monkeypatch: pytest.MonkeyPatch) -> None:
    messages = [Message("requests", 0, at, b"hopper", json.dumps(event(at)).encode()) for at in range(2)]
    keep([(message, Rejection("unknown_user", "There is no active user 'hopper'.")) for message in messages])
    hopper = User.objects.create(username="hopper")
    monkeypatch.setattr(settings.ENV, "waiting_limit", 1)
    ran = run("kafka", "rejected", "replay", "--yes")
    assert (ran.status, "full, or locked" in ran.out) == (1, True)
    monkeypatch.setattr(settings.ENV, "waiting_limit", 2)
    assert run("kafka", "rejected", "replay", "--yes").status == 0
    assert [one.payload for one in requests_of(hopper)] == [0, 1]


def test_old_ones_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    keep([(Message("requests", 0, at, None, None), Rejection("empty", "no value")) for at in range(3)])
    RejectedMessage.objects.filter(offset__lt=2).update(rejected_at="2026-01-01T00:00Z")
    monkeypatch.setattr(settings.ENV, "kafka_rejected_retention_days", 0)
    prune()
    assert RejectedMessage.objects.count() == 3
    monkeypatch.setattr(settings.ENV, "kafka_rejected_retention_days", 90)
    monkeypatch.setattr(keeping, "PRUNED", 1)
    prune()
    assert [one.offset for one in RejectedMessage.objects.all()] == [2]


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("KAFKA_USER", "cookie:user", "key, header:NAME or payload:path.to.field"),
        ("KAFKA_CONFIG", '{"group.id": "x"}', "group.id: set by ingest_kafka itself"),
        ("KAFKA_CONFIG", "security.protocol=SSL", "write a JSON object"),
    ],
)
def test_a_setting_that_does_not_fit_stops_the_start(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, told: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(Exception, match=told.split(":")[0]) as caught:
        read_environment()
    assert told in str(caught.value)


def manage(*words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *words]
    return subprocess.run(command, env=os.environ | environ, cwd=ROOT, capture_output=True, text=True, check=False)


def test_without_the_library_a_sentence_says_what_to_install() -> None:
    told = (
        "import sys; sys.modules['confluent_kafka'] = None\n"
        "from django.core.management import execute_from_command_line as go\n"
        "go(['manage.py', 'check']); go(['manage.py', 'kafka', 'rejected', 'list'])\n"
        "go(['manage.py', 'ingest_kafka'])"
    )
    ran = manage("-c", told)
    assert ran.returncode == 1
    assert "CommandError: confluent-kafka is not installed: pip install" in ran.stderr
    (path,) = [word for word in ran.stderr.split() if word.endswith("requirements.txt")]
    assert (ROOT / path).exists()


def test_without_brokers_a_sentence_says_what_to_set() -> None:
    ran = manage("manage.py", "ingest_kafka", KAFKA_BROKERS="")
    assert (ran.returncode, "Set it to where Kafka is: KAFKA_BROKERS=kafka:9092" in ran.stderr) == (1, True)


def test_without_the_app_the_rest_works(tmp_path: Path) -> None:
    (tmp_path / "without.py").write_text("from project.settings import *\nINSTALLED_APPS.remove('processing.kafka')\n")
    told = (
        "import django, sys; django.setup()\n"
        "import project.asgi, processing.dispatch.dispatcher\n"
        "from django.core.management import call_command; call_command('check')\n"
        "assert not [name for name in sys.modules if 'kafka' in name], sys.modules"
    )
    ran = manage("-c", told, DJANGO_SETTINGS_MODULE="without", PYTHONPATH=f"{tmp_path}:{ROOT}")
    assert ran.returncode == 0, ran.stderr


def test_with_the_app_no_process_but_the_ingester_loads_the_library() -> None:
    told = (
        "import django, sys; django.setup()\n"
        "import project.asgi, processing.dispatch.dispatcher, processing.worker.process\n"
        "assert 'confluent_kafka' not in sys.modules"
    )
    ran = manage("-c", told, DJANGO_SETTINGS_MODULE="project.settings")
    assert ran.returncode == 0, ran.stderr
