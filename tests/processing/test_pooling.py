"""Behind a pooler: sessions that last are as good as PostgreSQL itself, others are refused with a sentence."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from scripts.place import ROOT, SetupError, free_port
from scripts.servers import packages
from scripts.servers.postgresql import Postgresql
from scripts.servers.process import launch
from tests.waiting import until


@pytest.fixture(scope="module")
def pgbouncer() -> str:
    try:
        return packages.programs({"pgbouncer": "pgbouncer"})["pgbouncer"]
    except SetupError as wrong:
        pytest.fail(str(wrong), pytrace=False)


@pytest.fixture(scope="module")
def postgresql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgresql]:
    with Postgresql(tmp_path_factory.mktemp("pooled") / "postgresql") as server:
        yield server


@contextmanager
def pooled(pgbouncer: str, server: Postgresql, mode: str) -> Iterator[str]:
    """The address of `server` through a pool as docs/deployment.md sets it."""
    with tempfile.TemporaryDirectory() as folder:  # it runs as another user, who cannot come into tmp_path
        yield from _pooled(pgbouncer, server, Path(folder), mode)


def _pooled(pgbouncer: str, server: Postgresql, folder: Path, mode: str) -> Iterator[str]:
    port = free_port()
    place = f"host=127.0.0.1 port={server.port} user=postgres password={server.password}"
    settings = folder / "pgbouncer.ini"
    settings.write_text(
        f"[databases]\nordered_work = {place}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n"
        f"unix_socket_dir =\nauth_type = any\npool_mode = {mode}\nignore_startup_parameters = options\n"
    )
    folder.chmod(0o755)
    settings.chmod(0o600)
    if user := server.user():
        shutil.chown(settings, user)
    with (folder / "log").open("wb") as log:
        process = launch([pgbouncer, str(settings)], environment={}, output=log, folder=Path("/"), user=server.user())
    url = f"postgres://somebody@127.0.0.1:{port}/ordered_work"

    def answers() -> bool:
        try:
            psycopg.connect(url, connect_timeout=5).close()
        except psycopg.Error:
            return False
        return True

    try:
        until(answers, 30, f"PgBouncer answers: {(folder / 'log').read_text()}")
        yield url
    finally:
        process.kill()


def python(url: str, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "DATABASE_URL": url}
    command = [sys.executable, *words]
    return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


LOOK = "import django; django.setup(); from project.postgresql import pooling; print(pooling.by_transaction())"


def test_postgresql_itself_and_a_pool_of_sessions_are_taken(pgbouncer: str, postgresql: Postgresql) -> None:
    assert python(postgresql.url, "-c", LOOK).stdout == "False\n"
    with pooled(pgbouncer, postgresql, "session") as url:
        said = python(url, "-c", LOOK)
        assert said.stdout == "False\n", said.stderr


def test_dispatcher_and_worker_refuse_a_pool_of_transactions(pgbouncer: str, postgresql: Postgresql) -> None:
    with pooled(pgbouncer, postgresql, "transaction") as url:
        for command in ("dispatch", "work"):
            said = python(url, "manage.py", command)
            assert said.returncode == 1
            assert said.stderr.splitlines()[-1].startswith("CommandError: A pooler in transaction mode stands before")
            assert "pool_mode=session" in said.stderr
        with psycopg.connect(url) as busy:  # somebody else's transaction holds a server of the pool
            busy.execute("SELECT 1")
            assert python(url, "-c", LOOK).stdout == "True\n"
