"""What a session borrows it gives back, and what a killed one could not, the next one does."""

import os
import signal
import subprocess
import sys

import pika
import pika.exceptions
import psycopg
import pytest

from scripts.place import ROOT, read_state, write_state
from scripts.servers import postgresql, rabbitmq, redis
from scripts.servers.borrowing import SESSIONS, borrowed, clear_the_dead
from scripts.servers.servers import Servers
from tests.conftest import SERVERS


def exists(url: str) -> bool:
    try:
        postgresql.connect(url).close()
    except psycopg.OperationalError:
        return False
    return True


def test_nothing_is_left_of_it() -> None:
    with borrowed("back", keep_servers=False) as servers:
        assert exists(servers.database_url)
        with redis.connect(servers.redis_url) as client:
            client.set("ours", 1)
        assert (SESSIONS / name_of(servers)).is_dir()
    assert not exists(servers.database_url)
    assert servers.queue_prefix or rabbitmq.reach(servers.rabbitmq_url) is not None
    with redis.connect(servers.redis_url) as client:
        assert client.dbsize() == 0
    assert not (SESSIONS / name_of(servers)).exists()


def test_two_at_once_share_nothing() -> None:
    with borrowed("one", keep_servers=False) as one, borrowed("two", keep_servers=False) as two:
        assert one.database_url != two.database_url
        assert one.redis_url != two.redis_url
        assert (one.rabbitmq_url, one.queue_prefix) != (two.rabbitmq_url, two.queue_prefix)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_of_a_session_that_was_stopped(number: int) -> None:
    code = """
import time
from scripts.servers.borrowing import borrowed
from scripts.servers.process import signals_interrupt
signals_interrupt()
with borrowed("killed", keep_servers=False) as servers:
    print(servers.database_url, flush=True)
    time.sleep(60)
"""
    session = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert session.stdout is not None
    url = session.stdout.readline().strip()
    assert exists(url)
    session.send_signal(number)
    session.wait()
    session.stdout.close()
    clear_the_dead()
    assert not exists(url)
    assert not (SESSIONS / url.rpartition("/")[2]).exists()


def test_what_a_server_does_not_let_go_is_given_back_later(monkeypatch: pytest.MonkeyPatch) -> None:
    def busy(_url: str) -> None:
        raise psycopg.OperationalError("sorry, too many clients already")

    with monkeypatch.context() as patched:
        patched.setattr(postgresql, "drop_database", busy)
        with borrowed("busy", keep_servers=False) as servers:
            assert exists(servers.database_url)
    folder = SESSIONS / name_of(servers)
    assert exists(servers.database_url)
    write_state(folder / "state.json", {"pid": 1, "born": "never"})
    clear_the_dead()
    assert not exists(servers.database_url)
    assert not folder.exists()


def test_a_living_session_is_not_cleared() -> None:
    with borrowed("living", keep_servers=False) as servers:
        clear_the_dead()
        assert exists(servers.database_url)
        assert read_state(SESSIONS / name_of(servers) / "state.json")["pid"] == os.getpid()


def test_where_queues_only_have_a_prefix_they_are_removed_too(monkeypatch: pytest.MonkeyPatch) -> None:
    parameters = pika.URLParameters(SERVERS.rabbitmq_url)
    monkeypatch.setattr(rabbitmq, "own_vhost", lambda *_: None)
    monkeypatch.setenv("RABBITMQ_URL", SERVERS.rabbitmq_url)
    monkeypatch.delenv("SERVERS", raising=False)
    with borrowed("prefix", keep_servers=False) as servers, pika.BlockingConnection(parameters) as connection:
        assert servers.rabbitmq_url == SERVERS.rabbitmq_url
        assert servers.queue_prefix.endswith(f"{name_of(servers)}.")
        names = [servers.queue_prefix + name for name in ("drain", "user.7")]
        for name in names:
            connection.channel().queue_declare(name, durable=True)
    with pika.BlockingConnection(parameters) as connection:
        for name in names:
            with pytest.raises(pika.exceptions.ChannelClosedByBroker, match="NOT_FOUND"):
                connection.channel().queue_declare(name, passive=True)


def name_of(servers: Servers) -> str:
    return servers.database_url.rpartition("/")[2]
