"""Every wait for PostgreSQL ends by our clock, and one restart is no failure for each connection."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import psycopg
import pytest
from django.db import OperationalError, connections, transaction

from project.postgresql import base
from project.postgresql.base import DatabaseWrapper, Server
from project.postgresql.limits import Limits, of_role, role
from project.settings import database
from scripts.place import ROOT, free_port
from scripts.servers.postgresql import Postgresql
from tests.waiting import until

SHORT = Limits(1.0, 0.5, 5.0)


class Proxy:
    """Between us and a server: holds what it carries when it is told to."""

    def __init__(self, target: int) -> None:
        self.port = free_port()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "scripts.chaos.proxy", f"pg={self.port}:{target}"],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self._said()

    def do(self, what: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"do": what, "name": "pg"}) + "\n")
        self.process.stdin.flush()
        self._said()

    def _said(self) -> None:
        assert self.process.stdout is not None
        assert self.process.stdout.readline()


@pytest.fixture(scope="module")
def private(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgresql]:
    with Postgresql(tmp_path_factory.mktemp("private") / "server") as server:
        yield server


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> Server:
    """What a process knows that has just begun."""
    monkeypatch.setattr(base, "server", Server())
    return base.server


@pytest.fixture
def connect(private: Postgresql, django_db_blocker: Any) -> Iterator[Callable[..., DatabaseWrapper]]:
    made = []

    def connect(port: int | None = None) -> DatabaseWrapper:
        about: dict[str, Any] = {"TIME_ZONE": None, "AUTOCOMMIT": True, "ATOMIC_REQUESTS": False}
        wrapper = DatabaseWrapper(database(private.url) | about | ({"PORT": port} if port else {}), "private")
        wrapper.wanted = SHORT
        made.append(wrapper)
        return wrapper

    with django_db_blocker.unblock():  # they are no connections to the tests' own database
        yield connect
        for wrapper in made:
            wrapper.close()


def ask(wrapper: DatabaseWrapper) -> Any:
    with wrapper.cursor() as cursor:
        cursor.execute("SELECT 1")
        return cursor.fetchone()


def test_a_restart_fails_nobody_who_asks_afterwards(
    private: Postgresql, connect: Callable[..., DatabaseWrapper]
) -> None:
    wrappers = [connect() for _ in range(16)]
    assert [ask(wrapper) for wrapper in wrappers] == [(1,)] * 16
    private.restart()
    began = time.monotonic()
    assert [ask(wrapper) for wrapper in wrappers] == [(1,)] * 16
    assert time.monotonic() - began < 5


def test_all_connections_are_known_dead_with_the_first(
    private: Postgresql, connect: Callable[..., DatabaseWrapper], known: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "TRUST_SECONDS", 1000.0)  # nobody looks
    wrappers = [connect() for _ in range(4)]
    for wrapper in wrappers:
        ask(wrapper)
    private.restart()
    failed = 0
    for wrapper in wrappers:
        try:
            ask(wrapper)
        except OperationalError:
            failed += 1
    assert (failed, known.epoch) == (1, 1)


def test_what_holds_a_lock_of_its_session_is_told_and_gets_no_other_connection(
    private: Postgresql, connect: Callable[..., DatabaseWrapper]
) -> None:
    leader = connect()
    leader.keeps_session = True
    ask(leader)
    private.restart()
    with pytest.raises(OperationalError):
        ask(leader)


def test_a_server_that_accepts_and_never_answers_is_given_up_and_found_again(
    private: Postgresql, connect: Callable[..., DatabaseWrapper]
) -> None:
    """Nobody resets the connection, and TCP goes on acknowledging."""
    proxy = Proxy(private.port)
    try:
        first, second = connect(proxy.port), connect(proxy.port)
        ask(first), ask(second)
        proxy.do("hold")
        began = time.monotonic()
        with pytest.raises(OperationalError, match="did not answer"):
            ask(first)
        with pytest.raises(OperationalError):
            ask(second)  # a connection is tried, once
        assert time.monotonic() - began < 5
        proxy.do("release")

        def back() -> bool:
            try:
                return bool(ask(first) and ask(second))
            except OperationalError:
                return False

        until(back, 5, "PostgreSQL is found again")
    finally:
        proxy.process.kill()
        proxy.process.wait()


def test_limits_are_kept_by_postgresql_too_and_follow_who_asks(connect: Callable[..., DatabaseWrapper]) -> None:
    wrapper = connect()

    def setting(name: str) -> str:
        with wrapper.cursor() as cursor:
            cursor.execute(f"SHOW {name}")
            return str(cursor.fetchone()[0])

    assert [setting(n) for n in ("statement_timeout", "lock_timeout", "jit")] == ["1s", "500ms", "off"]
    wrapper.wanted = Limits(30.0, 30.0, 40.0)
    assert [setting(n) for n in ("statement_timeout", "lock_timeout")] == ["30s", "30s"]
    assert setting("idle_in_transaction_session_timeout") == "40s"
    with wrapper.cursor() as cursor:
        cursor.execute("SELECT pg_sleep(1.6)")  # longer than the service's own statements may take
    wrapper.wanted = SHORT
    assert setting("statement_timeout") == "1s"


def test_a_command_s_transaction_that_does_nothing_ends_within_a_minute_and_its_statements_may_take_longer() -> None:
    assert role() == "command"
    limits = of_role()
    assert limits.idle <= 60.0 < limits.statement


def test_limits_never_change_inside_a_transaction(connect: Callable[..., DatabaseWrapper]) -> None:
    """A rollback would undo the change, and nobody would know."""
    wrapper = connect()
    ask(wrapper)
    connections["private"] = wrapper
    try:
        with transaction.atomic(using="private"):
            wrapper.wanted = Limits(30.0, 30.0, 40.0)
            with wrapper.cursor() as cursor:
                cursor.execute("SHOW statement_timeout")
                assert cursor.fetchone() == ("1s",)
    finally:
        del connections["private"]


def test_the_look_between_requests_fails_nobody_while_postgresql_is_away(
    known: Server, connect: Callable[..., DatabaseWrapper], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Django looks before a request has begun: what is raised there no exception handler makes a 503 of."""
    mine = connect()
    mine.ensure_connection()
    known.lost(known.epoch)

    def refused(**_: Any) -> Any:
        raise psycopg.OperationalError("connection refused")

    monkeypatch.setattr(base.BoundedConnection, "connect", refused)
    mine.close_if_unusable_or_obsolete()
    assert mine.connection is None
    with pytest.raises(OperationalError):
        mine.ensure_connection()


def test_while_postgresql_is_away_one_thread_tries_and_the_others_are_refused_at_once(
    known: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries, end = [], threading.Event()

    def hang(**_: Any) -> Any:
        tries.append(1)
        end.wait(20)
        raise psycopg.OperationalError("no answer")

    monkeypatch.setattr(base.BoundedConnection, "connect", hang)
    known.away = True

    def one_that_tries() -> None:
        with suppress(psycopg.OperationalError):
            known.connect({})

    trying = threading.Thread(target=one_that_tries)
    trying.start()
    until(lambda: tries, 10, "one tries")
    began = time.monotonic()
    for _ in range(5):
        with pytest.raises(psycopg.OperationalError, match="another thread"):
            known.connect({})
    assert time.monotonic() - began < 5
    end.set()
    trying.join(10)
    assert tries == [1]
