"""`manage.py ingest_kafka` in processes: rebalanced, stopped, killed, cut off; nothing is lost and nothing doubled."""

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import orjson
import pytest
from django.db import connection

from accounts.models import User
from processing.kafka.models import Event
from queues.models import Request
from scripts.place import free_port
from tests.processing.crew import new_user, requests_of
from tests.processing.kafka.brokers import QUICK, Broker, event, mesh, mock_cluster
from tests.queues.commands import run
from tests.waiting import until
from tests.watched import watched

ROOT = Path(__file__).resolve().parents[3]

pytestmark = pytest.mark.django_db(transaction=True)


class Ingesters:
    def __init__(self, broker: Broker, topic: str, output: Path) -> None:
        self.output = output
        self.environ = {
            "KAFKA_BROKERS": broker.address,
            "KAFKA_TOPICS": topic,
            "KAFKA_GROUP": f"{topic}-readers",
            "KAFKA_CONFIG": orjson.dumps(QUICK).decode(),
            **watched(),
        }
        self.running: list[subprocess.Popen[bytes]] = []

    def start(self, *options: str) -> subprocess.Popen[bytes]:
        with self.output.open("ab") as output:
            command = [sys.executable, "manage.py", "ingest_kafka", *options]
            process = subprocess.Popen(
                command, cwd=ROOT, env=os.environ | self.environ, stdout=output, stderr=subprocess.STDOUT
            )
        self.running.append(process)
        return process

    def count(self, what: str) -> int:
        return self.output.read_text(errors="replace").count(what)

    def end(self) -> None:
        for process in self.running:
            process.kill()
            process.wait()


@pytest.fixture
def users() -> list[User]:
    return [new_user() for _ in range(20)]


@pytest.fixture
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Broker]:
    with mock_cluster() if getattr(request, "param", "mock") == "mock" else mesh(tmp_path) as broker:
        yield broker


@pytest.fixture
def ingesters(broker: Broker, tmp_path: Path) -> Iterator[Ingesters]:
    found = Ingesters(broker, broker.topic(), tmp_path / "ingesters.log")
    yield found
    found.end()


def send(broker: Broker, topic: str, users: list[User], numbers: range) -> None:
    """Each user's in one partition, as a key has it."""
    for number in numbers:
        at = number % len(users)
        broker.send(topic, event(number), key=users[at].username, partition=at % 4)
    broker.flush()


def check(users: list[User], count: int) -> None:
    """All, once, each user's in order."""
    for at, user in enumerate(users):
        assert [one.payload for one in requests_of(user)] == list(range(at, count, len(users)))
    assert Event.objects.count() == count


@pytest.mark.parametrize("broker", ["mock", "mesh"], indirect=True)
def test_kills_stops_and_rebalances_lose_nothing_and_double_nothing(
    broker: Broker, ingesters: Ingesters, users: list[User]
) -> None:
    topic, count = ingesters.environ["KAFKA_TOPICS"], 0
    ingesters.start()
    for round_ in range(4):
        send(broker, topic, users, range(count, count + 1_000))
        count += 1_000
        some = count - 900
        until(lambda some=some: Request.objects.count() >= some, 60, "it reads on")
        process = ingesters.running[-1]
        if broker.is_mock or not round_ % 2:
            ingesters.start()  # rebalances
        process.send_signal(signal.SIGTERM if round_ % 2 else signal.SIGKILL)
        status = process.wait(20)
        assert status == (0 if round_ % 2 else -signal.SIGKILL)
        if process is ingesters.running[-1]:  # Tansu's group has no reader any more if one leaves while another joins
            ingesters.start()
    until(lambda: Request.objects.count() == count, 90, "all are accepted")
    check(users, count)
    until(lambda: sum(broker.committed(topic, f"{topic}-readers", at) for at in range(4)) == count, 60, "committed")


DIE = """
import os, signal, sys, django
django.setup()
from django.core.management import execute_from_command_line
from processing.kafka.ingester import Ingester
store = Ingester._store

def die_instead(self):
    if any(one.done > 0 for one in self.partitions.values()):
        os.kill(os.getpid(), signal.SIGKILL)
    store(self)

Ingester._store = die_instead
execute_from_command_line(["manage.py", "ingest_kafka"])
"""


def test_killed_between_the_commit_and_the_offset_it_doubles_nothing(
    broker: Broker, ingesters: Ingesters, users: list[User]
) -> None:
    topic = ingesters.environ["KAFKA_TOPICS"]
    send(broker, topic, users, range(1_500))
    environ = os.environ | ingesters.environ | {"DJANGO_SETTINGS_MODULE": "project.settings"}
    for _ in range(2):
        before = Request.objects.count()
        killed = subprocess.run([sys.executable, "-c", DIE], cwd=ROOT, env=environ, check=False, capture_output=True)
        assert killed.returncode == -signal.SIGKILL
        assert Request.objects.count() >= before
        assert max(broker.committed(topic, f"{topic}-readers", at) for at in range(4)) < 0
    assert Request.objects.count() > 0
    ingesters.start()
    until(lambda: Request.objects.count() == 1_500, 60, "all are accepted")
    until(lambda: sum(broker.committed(topic, f"{topic}-readers", at) for at in range(4)) == 1_500, 60, "committed")
    check(users, 1_500)


def test_connections_to_postgresql_that_are_cut_lose_nothing(
    broker: Broker, ingesters: Ingesters, users: list[User]
) -> None:
    topic, count = ingesters.environ["KAFKA_TOPICS"], 0
    ingesters.start()

    def cut() -> bool:
        """One that is at work."""
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid() AND state <> 'idle'"
            )
            return bool(cursor.fetchall())

    for _ in range(4):
        send(broker, topic, users, range(count, count + 1_000))
        count += 1_000
        until(cut, 60, "it is at work")
    until(lambda: Request.objects.count() == count, 60, "all are accepted")
    check(users, count)
    assert ingesters.count("kafka_waits_for_postgresql")


def test_two_share_the_partitions_and_one_takes_over(broker: Broker, ingesters: Ingesters, users: list[User]) -> None:
    topic = ingesters.environ["KAFKA_TOPICS"]
    first, second = ingesters.start(), ingesters.start()
    until(lambda: ingesters.count("kafka_assigned") >= 2, 60, "both have some")
    send(broker, topic, users, range(2_000))
    until(lambda: Request.objects.count() == 2_000, 60, "all are accepted")
    first.send_signal(signal.SIGSTOP)
    send(broker, topic, users, range(2_000, 3_000))
    until(lambda: Request.objects.count() == 3_000, 60, "the other one takes over")
    first.send_signal(signal.SIGCONT)
    send(broker, topic, users, range(3_000, 4_000))
    until(lambda: Request.objects.count() == 4_000, 60, "all are accepted")
    check(users, 4_000)
    for process in (first, second):
        process.terminate()
        assert process.wait(20) == 0


def test_a_broker_that_is_silent_for_a_while_is_read_on(
    broker: Broker, ingesters: Ingesters, users: list[User]
) -> None:
    topic, port = ingesters.environ["KAFKA_TOPICS"], free_port()
    ingesters.start("--health-port", str(port))
    send(broker, topic, users, range(500))
    until(lambda: Request.objects.count() == 500, 60, "all are accepted")

    def answers(what: str) -> dict[str, object]:
        with urlopen(f"http://127.0.0.1:{port}/{what}", timeout=5) as answer:
            return {"status": answer.status, "body": answer.read().decode()}

    until(lambda: '"kafka":"ok"' in str(answers("health/ready")["body"]).replace(" ", ""), 20, "it is ready")
    assert "ordered_work_kafka_messages_total" in str(answers("metrics")["body"])
    broker.process.send_signal(signal.SIGSTOP)
    until(lambda: ingesters.count("kafka_revoked"), 60, "its session is over")
    assert answers("health/live")["status"] == 200
    broker.process.send_signal(signal.SIGCONT)
    send(broker, topic, users, range(500, 1_000))
    until(lambda: Request.objects.count() == 1_000, 90, "all are accepted")
    check(users, 1_000)


def test_topics_are_made_at_start_by_those_who_ask_for_it(tmp_path: Path, users: list[User]) -> None:
    with mesh(tmp_path) as broker:
        ingesters = Ingesters(broker, "orders,mails", tmp_path / "ingesters.log")
        try:
            ingesters.start("--create-topics", "4")
            until(lambda: {"orders", "mails"} <= set(broker.admin.list_topics(timeout=10).topics), 60, "they are there")
            assert len(broker.admin.list_topics(timeout=10).topics["orders"].partitions) == 4
            send(broker, "orders", users, range(100))
            until(lambda: Request.objects.count() == 100, 60, "all are accepted")
            again = ingesters.start("--create-topics", "4")
            until(lambda: ingesters.count("ingesting") == 2, 60, "topics that are there are left alone")
            assert again.poll() is None
        finally:
            ingesters.end()


def test_the_guides_first_message_and_commands_work(tmp_path: Path) -> None:
    guide = (ROOT / "docs" / "kafka.md").read_text()
    (program,) = re.findall(r"^```python\n(.+?)^```", guide, re.DOTALL | re.MULTILINE)
    (options,) = re.findall(r"ingest_kafka (--create-topics \d+)", guide)
    ada = User.objects.create(username="ada")
    with mesh(tmp_path) as broker:
        ingesters = Ingesters(broker, "requests", tmp_path / "ingesters.log")
        try:
            ingesters.start(*options.split())
            until(lambda: ingesters.count("ingesting"), 60, "the topic is there")
            told = program.replace("localhost:9092", broker.address)
            subprocess.run([sys.executable, "-c", told], check=True, timeout=60)
            until(lambda: requests_of(ada), 60, "it is a request")
        finally:
            ingesters.end()
    assert requests_of(ada)[0].payload == {"n": 1}
    for command in re.findall(r"^manage\.py (kafka rejected list.*)$", guide, re.MULTILINE):
        assert run(*shlex.split(command)).status == 0
