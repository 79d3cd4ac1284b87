"""Columns of a queue get other names while the release before serves, and goes on writing the names that it knows."""

import importlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from django.db import connection
from psycopg.rows import tuple_row

from project.postgresql.limits import MIGRATION_LOCK_SECONDS
from scripts.place import ROOT
from scripts.servers import postgresql
from tests.waiting import until

RENAMED = importlib.import_module("queues.migrations.0020_columns_renamed")
HELD = importlib.import_module("queues.migrations.0009_held")
OLD, NEW = list(RENAMED.NEW), list(RENAMED.NEW.values())
SAYS_NOTHING = (0, False, None, None)
SAID = (5, True, 7, 1.5)
COLUMNS = "SELECT column_name FROM information_schema.columns WHERE table_name = 'queues_userqueue'"

Database = psycopg.Connection[tuple[Any, ...]]


def migrate(url: str, to: str, app: str = "queues") -> None:
    done = migrating(url, to, app)
    _, said = done.communicate(timeout=300)
    assert done.returncode == 0, said


def migrating(url: str, to: str, app: str = "queues") -> subprocess.Popen[str]:
    command = [sys.executable, "manage.py", "migrate", "--no-input", "-v", "0", app, to]
    variables = {**os.environ, "DATABASE_URL": url}
    return subprocess.Popen(command, env=variables, cwd=ROOT, stderr=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A database as the release before left it, with one queue."""
    made = postgresql.own_database(os.environ["DATABASE_URL"], f"ordered_work_test_{os.getpid()}_renamed")
    try:
        migrate(made, "0019")
        with psycopg.connect(made, autocommit=True) as database:
            queue(database, dict(zip(OLD, SAID, strict=True)))
        yield made
    finally:
        postgresql.drop_database(made)


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    with psycopg.connect(url, autocommit=True, row_factory=tuple_row) as database:
        yield database


def queue(database: Database, values: dict[str, Any]) -> int:
    """The id of a new user's queue, that was made with these values."""
    user = uuid4()
    database.execute(
        "INSERT INTO accounts_user (id, username, password, email, is_superuser, is_staff, is_active, created_at)"
        " VALUES (%s, %s, '', '', false, false, true, now())",
        [user, user.hex],
    )
    names = ["user_id", *values]
    into = f"INSERT INTO queues_userqueue ({', '.join(names)}) VALUES ({', '.join(['%s'] * len(names))}) RETURNING id"
    return int(database.execute(into, [user, *values.values()]).fetchone()[0])  # type: ignore[index]


def both(database: Database, id_: int) -> list[tuple[Any, ...]]:
    """What it says by the old names, and by the new ones."""
    row = database.execute(f"SELECT {', '.join([*OLD, *NEW])} FROM queues_userqueue WHERE id = %s", [id_]).fetchone()
    assert row is not None
    return [row[: len(OLD)], row[len(OLD) :]]


def test_whose_pause_it_is_was_found_when_that_was_introduced(database: Database) -> None:
    said = {by: queue(database, {"paused": True, "paused_by": by}) for by in ("", "its owner", "ada: ticket 4711")}
    said["resumed"] = queue(database, {"paused_by": "ada: ticket 4712"})
    database.execute(HELD.HOLD)
    held = database.execute("SELECT id FROM queues_userqueue WHERE held AND id = ANY (%s)", [list(said.values())])
    assert held.fetchall() == [(said["ada: ticket 4711"],)]


def test_both_releases_read_what_either_wrote(url: str, database: Database) -> None:
    (first,) = database.execute("SELECT min(id) FROM queues_userqueue").fetchone()  # type: ignore[misc]
    migrate(url, "0020")
    assert both(database, first) == [SAID, SAID], "what was there before"
    for names in (OLD, NEW):
        made = queue(database, dict(zip(names, SAID, strict=True)))
        assert both(database, made) == [SAID, SAID], f"made with {names}"
        for values in (SAYS_NOTHING, SAID):
            for name, value in zip(names, values, strict=True):
                database.execute(f"UPDATE queues_userqueue SET {name} = %s WHERE id = %s", [value, first])
                old, new = both(database, first)
                assert old == new, f"changed by {name}"
            assert both(database, first) == [values, values]
        nothing = queue(database, {})
        assert both(database, nothing) == [SAYS_NOTHING, SAYS_NOTHING]


def test_filling_waits_for_no_lock_and_leaves_nothing_out(url: str, database: Database) -> None:
    migrate(url, "0020")
    ids = [queue(database, dict(zip(OLD, SAID, strict=True))) for _ in range(3)]
    database.execute("ALTER TABLE queues_userqueue DISABLE TRIGGER queues_userqueue_alike")
    database.execute("UPDATE queues_userqueue SET holder = 8 WHERE id = ANY (%s)", [ids])
    database.execute("ALTER TABLE queues_userqueue ENABLE TRIGGER queues_userqueue_alike")
    assert both(database, ids[0])[1] == SAID

    def fill() -> None:
        with psycopg.connect(url, autocommit=True) as other:
            other.execute(RENAMED.FILL)

    filling = threading.Thread(target=fill)
    with psycopg.connect(url) as locked:
        locked.execute("SELECT FROM queues_userqueue WHERE id = %s FOR UPDATE", [ids[0]])
        filling.start()
        until(
            lambda: all(both(database, id_)[1] == (5, True, 8, 1.5) for id_ in ids[1:]), 60, "those that are not locked"
        )
        assert both(database, ids[0])[1] == SAID
    filling.join(30)
    assert not filling.is_alive()
    assert both(database, ids[0])[1] == (5, True, 8, 1.5)


def test_a_backup_beside_the_migration_stops_nobody(url: str, database: Database) -> None:
    migrate(url, "0019")
    database.execute("SET statement_timeout = '5s'")
    with psycopg.connect(url) as backup:
        backup.execute("LOCK TABLE queues_userqueue IN ACCESS SHARE MODE")  # as pg_dump does, to its end
        beside = migrating(url, "0020")
        while beside.poll() is None:
            database.execute("SELECT count(*) FROM queues_userqueue")
        assert "canceling statement due to lock timeout" in beside.communicate()[1]
        assert beside.returncode != 0
    assert not {name for (name,) in database.execute(COLUMNS)} & set(NEW)
    migrate(url, "0020")
    assert {name for (name,) in database.execute(COLUMNS)} >= set(NEW)


def test_an_index_is_made_however_long_somebody_reads(url: str, database: Database) -> None:
    """It waits for them and stops nobody; were it interrupted, half an index would stand in the way of the next try."""
    migrate(url, "0008", "accounts")
    waits = "SELECT extract(epoch FROM now() - query_start) FROM pg_stat_activity WHERE query LIKE 'CREATE INDEX %'"
    waits += " AND datname = current_database() AND wait_event_type = 'Lock'"
    with psycopg.connect(url) as reader:
        reader.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        reader.execute("SELECT FROM accounts_user LIMIT 1")
        beside = migrating(url, "0009", "accounts")
        until(
            lambda: beside.poll() or [row for row in database.execute(waits) if row[0] > 2 * MIGRATION_LOCK_SECONDS],
            60,
            "it waits",
        )
    _, said = beside.communicate(timeout=60)
    assert beside.returncode == 0, said


def test_taken_back_the_old_names_have_all(url: str, database: Database) -> None:
    migrate(url, "0020")
    made = queue(database, dict(zip(NEW, SAID, strict=True)))
    migrate(url, "0019")
    assert not {name for (name,) in database.execute(COLUMNS)} & set(NEW)
    row = database.execute(f"SELECT {', '.join(OLD)} FROM queues_userqueue WHERE id = %s", [made]).fetchone()
    assert row == SAID


@pytest.mark.django_db
def test_a_fresh_installation_has_neither_the_old_names_nor_what_keeps_them() -> None:
    with connection.cursor() as cursor:
        cursor.execute(COLUMNS)
        columns = {name for (name,) in cursor.fetchall()}
        cursor.execute("SELECT proname FROM pg_proc WHERE proname = 'queues_userqueue_alike'")
        assert cursor.fetchall() == []
    assert columns >= set(NEW)
    assert not columns & set(OLD)
