"""Private servers: started from what is installed, on ports of their own; their data outlives a restart."""

import subprocess
import sys
from pathlib import Path

import pika
import psycopg
import pytest

from scripts import place
from scripts.place import ROOT, SetupError, free_port, port_taken
from scripts.servers import rabbitmq, redis
from scripts.servers.postgresql import Postgresql
from scripts.servers.private import PrivateServer
from scripts.servers.rabbitmq import Rabbitmq
from scripts.servers.redis import Redis


def test_postgresql_keeps_its_rows_and_its_port(tmp_path: Path) -> None:
    with Postgresql(tmp_path / "server") as server:
        url = server.url
        with psycopg.connect(url) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 1 AS one")
        server.kill()
        assert not server.answers()
        server.start()
        server.restart()
        assert server.url == url
        with psycopg.connect(url) as connection:
            assert connection.execute("SELECT one FROM kept").fetchone() == (1,)
        server.pause()
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(url, connect_timeout=2)
        server.resume()
        psycopg.connect(url).close()
    assert port_taken(server.port) is None


def test_no_two_processes_are_given_the_same_port(monkeypatch: pytest.MonkeyPatch) -> None:
    given = free_port()
    monkeypatch.setattr(place.secrets, "randbelow", lambda _: given - 15000)
    with pytest.raises(SetupError, match="No free port"):
        free_port()
    code = f"from scripts import place; place.secrets.randbelow = lambda _: {given} - 15000; place.free_port()"
    other = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert "No free port" in other.stderr


@pytest.mark.parametrize(
    ("url", "management"),
    [
        ("amqp://guest@127.0.0.1:5672/%2F", "http://127.0.0.1:15672/api"),
        ("amqp://guest@broker/%2F", "http://broker:15672/api"),
        ("amqp://guest@127.0.0.1:5673/%2F", "http://127.0.0.1:15673/api"),
        ("amqps://guest@broker/%2F", "https://broker:15671/api"),
        ("amqp://guest@[::1]:5672/%2F", "http://[::1]:15672/api"),
    ],
)
def test_the_management_interface_asked_is_the_one_beside_the_broker_named(url: str, management: str) -> None:
    assert rabbitmq.management_interface(url) == management


def test_rabbitmq_keeps_its_persistent_messages_and_its_port(tmp_path: Path) -> None:
    with Rabbitmq(tmp_path / "server") as server:
        url = server.url
        with pika.BlockingConnection(pika.URLParameters(url)) as connection:
            channel = connection.channel()
            channel.confirm_delivery()
            channel.queue_declare("kept", durable=True)
            channel.basic_publish("", "kept", b"one", pika.BasicProperties(delivery_mode=2))
        server.kill()
        assert not server.answers()
        server.start()
        assert server.url == url
        with pika.BlockingConnection(pika.URLParameters(url)) as connection:
            assert connection.channel().basic_get("kept", auto_ack=True)[2] == b"one"
        own = rabbitmq.own_vhost(url, "ours", server.control)
        assert own is not None
        assert rabbitmq.reach(own) is None
        server.pause()
        assert not server.answers()
        server.resume()
        assert server.answers()
    assert port_taken(server.port) is None


def test_redis_comes_back_on_its_port(tmp_path: Path) -> None:
    with Redis(tmp_path / "server") as server:
        url = server.url
        server.restart()
        assert server.url == url
        assert redis.reach(url) is None
        assert redis.reach(url.replace(server.password, "guessed")) is not None


@pytest.mark.parametrize("kind", [Postgresql, Rabbitmq, Redis])
def test_nobody_else_on_the_machine_reads_the_secrets_of_a_private_server(
    tmp_path: Path, kind: type[PrivateServer]
) -> None:
    with kind(tmp_path / "server") as server:
        secrets = [server.password, *filter(None, [server.state.get("cookie")])]
        assert len(set(secrets)) == len(secrets), "who may connect is not who may do everything"
        assert not server.folder.stat().st_mode & 0o066, "nobody else lists or changes what is there"
        holding = [
            path for path in server.folder.rglob("*")
            if path.is_file() and any(secret.encode() in path.read_bytes() for secret in secrets)
        ]  # fmt: skip
        assert holding
        assert [path.name for path in holding if path.stat().st_mode & 0o077] == []


def test_a_server_that_runs_is_found_again_by_the_next_run(tmp_path: Path) -> None:
    with Redis(tmp_path / "server") as server:
        again = Redis(tmp_path / "server")
        assert again.running()
        again.launch()
        assert again.process is not None
        assert server.process is not None
        assert again.process.pid == server.process.pid
    assert not Redis(tmp_path / "server").running()


def test_a_port_taken_meanwhile_is_said_and_nothing_is_started(tmp_path: Path) -> None:
    server = Redis(tmp_path / "server").start()
    server.stop()
    with Redis(tmp_path / "other") as other:
        server.state["port"] = other.port
        with pytest.raises(SetupError, match=f"Redis's port {other.port} was taken by another program"):
            server.start()


def test_a_server_that_cannot_start_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Redis, "program", staticmethod(lambda: "/bin/false"))
    with pytest.raises(SetupError, match=r"Redis did not start\. The end of .*log"):
        Redis(tmp_path / "server").start()


def test_removing_a_server_leaves_nothing(tmp_path: Path) -> None:
    servers: list[PrivateServer] = [Postgresql(tmp_path / "postgresql"), Redis(tmp_path / "redis")]
    for server in servers:
        server.start().remove()
    assert list(tmp_path.iterdir()) == []
