"""Which servers are used: the named, else those that answer, else private ones; what is said when there are none."""

from pathlib import Path

import pytest

from project.local import docker, packages, postgresql, rabbitmq, redis
from project.local.place import SetupError, free_port
from project.local.postgresql import Postgresql
from project.local.private import PrivateServer
from project.local.rabbitmq import Rabbitmq
from project.local.redis import Redis
from project.local.servers import Found, Search, places, without_password
from tests.conftest import SERVERS

NAMED = {
    "PostgreSQL": ("DATABASE_URL", "postgres://somebody:secret@127.0.0.1:{port}/x"),
    "RabbitMQ": ("RABBITMQ_URL", "amqp://somebody:secret@127.0.0.1:{port}/x"),
    "Redis": ("REDIS_URL", "redis://:secret@127.0.0.1:{port}/1"),
}


@pytest.mark.parametrize("title", NAMED)
def test_a_named_server_that_is_down_is_an_error_and_never_replaced(
    title: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    variable, url = NAMED[title]
    monkeypatch.delenv("SERVERS", raising=False)
    monkeypatch.setenv(variable, url.format(port=free_port()))
    with pytest.raises(SetupError) as error:
        Search(tmp_path, guarded=True).all()
    assert f"{title} does not answer where {variable} says" in str(error.value)
    assert "secret" not in str(error.value)
    assert f"correct {variable}" in str(error.value)


def test_an_address_that_is_none_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SERVERS", raising=False)
    monkeypatch.setenv("REDIS_URL", "http://127.0.0.1")
    with pytest.raises(SetupError, match="Redis does not answer where REDIS_URL says"):
        Search(tmp_path, guarded=True).all()


@pytest.mark.parametrize(
    ("server", "variable", "package"),
    [
        (Postgresql, "DATABASE_URL", "postgresql"),
        (Rabbitmq, "RABBITMQ_URL", "rabbitmq-server"),
        (Redis, "REDIS_URL", "redis-server"),
    ],
)
@pytest.mark.usefixtures("nothing_named")
def test_a_missing_server_is_named_with_where_it_was_looked_for_and_how_to_get_it(
    server: type[PrivateServer], variable: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgresql, "answering", lambda: (None, ["127.0.0.1:5432: refused"]))
    monkeypatch.setattr(rabbitmq, "answering", lambda: (None, ["127.0.0.1:5672: refused"]))
    monkeypatch.setattr(redis, "answering", lambda: (None, ["127.0.0.1:6379: refused"]))
    monkeypatch.setattr(packages, "why_not", lambda: "not root, and sudo asks for a password")
    monkeypatch.setattr(docker, "why_not", lambda: "no docker command")
    monkeypatch.setattr(server, "installed", classmethod(lambda _: False))
    search = Search(tmp_path, guarded=True)
    module = {Postgresql: postgresql, Rabbitmq: rabbitmq, Redis: redis}[server]
    assert search.named_or_answering(module, server) is None
    with pytest.raises(SetupError) as error:
        search.private([server])
    said = str(error.value)
    assert said.startswith(f"{server.title} is missing. Looked for it: ")
    for looked in ("refused", "no program of it is installed", "sudo asks for a password", "no docker command"):
        assert looked in said
    assert f"install the package {package}" in said
    assert f"set {variable}=" in said


def test_each_purpose_has_a_place_of_its_own_on_one_server(tmp_path: Path) -> None:
    with Redis(tmp_path / "redis") as server, redis.connect(redis.with_number(server.url, 1)) as somebody:
        somebody.set("theirs", "kept")
        ours = redis.own_number(server.url, "ours")
        assert ours == redis.with_number(server.url, 2)
        assert redis.own_number(server.url, "ours") == ours
        assert redis.own_number(server.url, "another's") == redis.with_number(server.url, 3)
        redis.give_back(ours)
        assert somebody.get("theirs") == "kept"


def test_a_number_somebody_is_connected_to_is_not_empty(tmp_path: Path) -> None:
    with Redis(tmp_path / "redis") as server, redis.connect(redis.with_number(server.url, 1)) as somebody:
        somebody.ping()
        assert redis.own_number(server.url, "ours") == redis.with_number(server.url, 2)


def test_when_all_numbers_are_taken_there_is_none(tmp_path: Path) -> None:
    with Redis(tmp_path / "redis") as server:
        assert all(redis.own_number(server.url, f"user {n}") for n in range(15))
        assert redis.own_number(server.url, "one more") is None


def test_where_no_virtual_host_can_be_made_a_prefix_keeps_the_queues_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("QUEUE_PREFIX", raising=False)
    monkeypatch.setattr(rabbitmq, "own_vhost", lambda *_: None)
    monkeypatch.setattr(postgresql, "own_database", lambda url, _: url)
    found = [
        Found("PostgreSQL", SERVERS.database_url),
        Found("RabbitMQ", rabbitmq.CUSTOM),
        Found("Redis", SERVERS.redis_url, named=True),
    ]
    servers = places(found, "ordered_work", as_named=True)
    assert (servers.rabbitmq_url, servers.queue_prefix) == (rabbitmq.CUSTOM, "ordered_work.")


def test_a_server_without_programs_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Redis, "program", staticmethod(lambda: None))
    monkeypatch.setattr(packages, "why_not", lambda: "this is neither Debian nor Ubuntu")
    with pytest.raises(SetupError, match=r"No program of Redis is here .* Install package redis-server"):
        Redis(tmp_path).launch()


def test_a_password_is_never_shown() -> None:
    assert without_password("postgres://me:secret@host/x") == "postgres://me:..@host/x"
    assert without_password("redis://host/1") == "redis://host/1"
