"""Which servers are used: the named, else those that answer, else private ones; what is said when there are none."""

import contextlib
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from scripts.place import ROOT, SetupError, free_port
from scripts.servers import docker, packages, postgresql, rabbitmq, redis
from scripts.servers.found import Found
from scripts.servers.marks import Mark, machine
from scripts.servers.postgresql import Postgresql
from scripts.servers.private import PrivateServer
from scripts.servers.rabbitmq import Rabbitmq
from scripts.servers.reclaim import reclaim
from scripts.servers.redis import Redis
from scripts.servers.servers import Search, places, without_password
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


def marked(name: str, folder: object = ROOT) -> Mark:
    return Mark(name, str(folder), machine())


def test_each_purpose_has_a_place_of_its_own_on_one_server(tmp_path: Path) -> None:
    with Redis(tmp_path / "redis") as server, redis.connect(redis.with_number(server.url, 1)) as somebody:
        somebody.set("theirs", "kept")
        ours = redis.own_number(server.url, marked("ours"))
        assert ours == redis.with_number(server.url, 2)
        assert redis.own_number(server.url, marked("ours")) == ours
        assert redis.own_number(server.url, marked("another's")) == redis.with_number(server.url, 3)
        redis.give_back(ours)
        assert redis.own_number(server.url, marked("a third's")) == ours
        assert somebody.get("theirs") == "kept"


def test_a_number_somebody_is_connected_to_is_not_empty(tmp_path: Path) -> None:
    with Redis(tmp_path / "redis") as server, redis.connect(redis.with_number(server.url, 1)) as somebody:
        somebody.ping()
        assert redis.own_number(server.url, marked("ours")) == redis.with_number(server.url, 2)


def test_a_mark_of_an_earlier_release_is_known(tmp_path: Path) -> None:
    with Redis(tmp_path / "redis") as server, redis.connect(redis.with_number(server.url, 3)) as client:
        client.set(redis.MARK, "ours /some/folder")
        assert redis.own_number(server.url, marked("ours")) == redis.with_number(server.url, 3)
        assert Mark.read(client.get(redis.MARK)) == marked("ours")


def test_where_no_number_is_free_one_is_shared_and_each_gives_back_its_own_keys(tmp_path: Path) -> None:
    with Redis(tmp_path / "redis") as server:
        full = [redis.own_number(server.url, marked(f"user-{n}")) for n in range(15)]
        assert redis.own_number(server.url, marked("one-more")) is None
        shared = [redis.shared_number(server.url, marked(name)) for name in ("one-more", "another")]
        assert shared == [(full[-1], "one-more:"), (full[-1], "another:")]
        redis.give_back(str(full[0]))
        assert redis.place(server.url, marked("one-more")) == shared[0], "what runs already would look elsewhere"
        assert redis.place(server.url, marked("user-0")) == (full[0], "")
        with redis.connect(str(full[-1])) as client:
            for key in ("one-more:x", "another:x", "its owner's"):
                client.set(key, 1)
            redis.give_back(*shared[0])
            assert set(client.keys()) == {"another:x", "its owner's", redis.MARK, redis.SHARERS}
            redis.give_back(str(full[-1]))
            assert set(client.keys()) == {"another:x", redis.SHARERS}
            redis.give_back(*shared[1])
            assert client.dbsize() == 0
        assert redis.own_number(server.url, marked("one-more")) == full[-1]


Place = tuple[str, str, list[Found]]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Callable[[Mark], Place]]:
    """Makes a working copy's place, on a Redis of the test's own: its database, its number, and the servers."""
    made = []
    with Redis(tmp_path / "redis") as server:
        found = [
            Found("PostgreSQL", SERVERS.database_url),
            Found("RabbitMQ", SERVERS.rabbitmq_url),
            Found("Redis", server.url),
        ]

        def make(mark: Mark) -> Place:
            database = postgresql.own_database(SERVERS.database_url, mark.name)
            made.append(database)
            postgresql.mark_database(database, mark)
            rabbitmq.own_vhost(SERVERS.rabbitmq_url, mark.name)
            number = str(redis.own_number(server.url, mark))
            with redis.connect(number) as client:
                client.set("something", "of it")
            return database, number, found

        yield make
    for database in made:
        postgresql.drop_database(database)
        rabbitmq.drop_vhost(rabbitmq.with_vhost(SERVERS.rabbitmq_url, database.rpartition("/")[2]))


def name() -> str:
    return f"ordered_work_gone_{secrets.token_hex(4)}"


def test_the_place_of_a_folder_that_is_gone_is_given_back(place: Callable[[Mark], Place], tmp_path: Path) -> None:
    mark = marked(name(), tmp_path / "gone")
    database, number, found = place(mark)
    said = [line for line in reclaim(found) if mark.name in line]
    assert said == [f"gave back the database, virtual host and Redis number {mark.name}: {tmp_path}/gone is gone"]
    assert "does not exist" in str(postgresql.reach(database))
    assert rabbitmq.reach(rabbitmq.with_vhost(SERVERS.rabbitmq_url, mark.name)) is not None
    with redis.connect(number) as client:
        assert client.dbsize() == 0
    assert not [line for line in reclaim(found) if mark.name in line]


def test_a_place_that_redis_forgot_is_given_back_by_its_database(place: Callable[[Mark], Place]) -> None:
    mark = marked(name(), "/no/such/folder")
    database, number, found = place(mark)
    redis.give_back(number)
    assert [line for line in reclaim(found) if mark.name in line]
    assert "does not exist" in str(postgresql.reach(database))


@pytest.mark.parametrize("whose", ["a folder that is there", "another machine", "an earlier release"])
def test_a_place_that_may_be_somebodys_is_left_alone(whose: str, place: Callable[[Mark], Place]) -> None:
    folder = ROOT if whose == "a folder that is there" else "/no/such/folder"
    where = {"another machine": "another", "an earlier release": ""}.get(whose, machine())
    mark = Mark(name(), str(folder), where)
    database, _, found = place(mark)
    assert not [line for line in reclaim(found) if mark.name in line]
    assert postgresql.reach(database) is None


@pytest.mark.parametrize("to", ["database", "number"])
def test_a_place_that_somebody_is_connected_to_is_left_alone(
    to: str, place: Callable[[Mark], Place], tmp_path: Path
) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    mark = marked(name(), folder)
    database, number, found = place(mark)
    with contextlib.ExitStack() as stack:
        if to == "database":
            stack.enter_context(postgresql.connect(database))
        else:
            stack.enter_context(redis.connect(number)).ping()
        folder.rmdir()
        said = reclaim(found)
        folder.mkdir()  # or another ./run on this machine gives it back
        assert not [line for line in said if mark.name in line]
    assert postgresql.reach(database) is None
    with redis.connect(number) as client:
        assert client.get("something") == "of it"


def test_a_server_that_is_full_is_reported_as_that(monkeypatch: pytest.MonkeyPatch) -> None:
    """Instead of being taken for one that is not there, so that an empty one is started beside it."""

    def full(*_: Any, **__: Any) -> None:
        raise psycopg.OperationalError("FATAL:  sorry, too many clients already")

    monkeypatch.setattr(psycopg, "connect", full)
    for look in (postgresql.answering, lambda: postgresql.reach(SERVERS.database_url)):
        with pytest.raises(SetupError, match="has no free connection"):
            look()


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
