"""`./run clean` gives back all that a working copy has; `./run manage` and `./manage.py` find it."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from scripts.place import ROOT, SetupError, write_state
from scripts.run import clean, runs
from scripts.servers import postgresql, rabbitmq, redis, servers
from scripts.servers.found import Found
from scripts.servers.marks import Mark
from scripts.servers.process import birth
from scripts.servers.redis import Redis
from scripts.servers.servers import Search, Servers
from tests.conftest import SERVERS


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nothing_named: None) -> Path:
    """A working copy's folder, in which ./run made something."""
    folder = tmp_path / "copy"
    (folder / ".local" / "environments" / "one").mkdir(parents=True)
    (folder / ".local" / "environments" / "one" / "installed").touch()
    (folder / ".venv").symlink_to(".local/environments/one")
    (folder / "run").touch()
    for module in (clean, servers):
        monkeypatch.setattr(module, "LOCAL", folder / ".local")
        monkeypatch.setattr(module, "OWN_PLACE", folder / ".local" / "place")
    monkeypatch.setattr(clean, "ROOT", folder)
    monkeypatch.setattr(clean, "RUNS", folder / ".local" / "runs")
    monkeypatch.setattr(clean, "SESSIONS", folder / ".local" / "sessions")
    monkeypatch.setattr(servers, "OWN_NAME", f"ordered_work_clean_{os.getpid()}")
    monkeypatch.setattr(clean, "clear_the_dead", lambda: None)
    return folder


@pytest.fixture
def places(copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Servers]:
    """What the working copy has on servers that others use too."""
    with Redis(tmp_path / "redis") as server:
        found = [
            Found("PostgreSQL", SERVERS.database_url),
            Found("RabbitMQ", SERVERS.rabbitmq_url),
            Found("Redis", server.url),
        ]
        monkeypatch.setattr(Search, "all", lambda _: found)
        places = servers.find()
        yield places
        postgresql.drop_database(places.database_url)
        if not places.queue_prefix and rabbitmq.reach(places.rabbitmq_url) is None:
            rabbitmq.drop_vhost(places.rabbitmq_url)


def test_all_of_it_is_given_back(copy: Path, places: Servers, capsys: pytest.CaptureFixture[str]) -> None:
    assert [mark.folder for mark in postgresql.marks(SERVERS.database_url) if mark.name == servers.OWN_NAME] == [
        str(ROOT)
    ]
    with redis.connect(places.redis_url) as client:
        client.set("something", "of it")
        assert Mark.read(client.get(redis.MARK)) == Mark.of_this_copy(servers.OWN_NAME)
        assert clean.main(["--yes"]) == 0
        assert client.dbsize() == 0
    said = capsys.readouterr().out
    assert f"PostgreSQL: the database {servers.OWN_NAME} is removed" in said
    assert "Redis: number 1 is removed" in said
    with pytest.raises(psycopg.OperationalError, match="does not exist"):
        postgresql.connect(places.database_url)
    assert [path.name for path in copy.iterdir()] == ["run"]


def test_nothing_is_removed_unasked(copy: Path, places: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SetupError, match=r"\./run clean --yes"):
        clean.main([])
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda _: "no")
    assert clean.main([]) == 1
    with pytest.raises(SetupError, match="--yes alone"):
        clean.main(["everything"])
    assert postgresql.reach(places.database_url) is None
    assert (copy / ".venv" / "installed").exists()


def test_nothing_is_removed_while_a_run_is_alive(copy: Path, places: Servers) -> None:
    write_state(copy / ".local" / "runs" / "1.json", {"pid": os.getpid(), "born": birth(os.getpid())})
    with pytest.raises(SetupError, match=f"Process {os.getpid()} of this working copy runs"):
        clean.main(["--yes"])
    (copy / ".local" / "runs" / "1.json").unlink()
    installed = copy / ".venv" / "installed"
    with subprocess.Popen(
        ["flock", "-s", installed, "-c", "echo held; read _"], stdin=-1, stdout=-1, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(SetupError, match=r"Another \./run of this working copy goes on"):
            clean.main(["--yes"])
        other.communicate("\n")
    assert postgresql.reach(places.database_url) is None
    assert clean.main(["--yes"]) == 0


def test_nothing_is_removed_while_a_server_is_away(copy: Path, places: Servers) -> None:
    write_state(
        servers.OWN_PLACE / "places.json",
        {**vars(places), "redis_url": "redis://127.0.0.1:1/1", "lasting": ["PostgreSQL", "Redis"], "private": []},
    )
    with pytest.raises(SetupError, match=r"Redis does not answer .* Start it, then again"):
        clean.main(["--yes"])
    assert postgresql.reach(places.database_url) is None


def manage(*arguments: str, environment: dict[str, str], by: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *by, *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def test_manage_runs_any_command_on_the_data_of_this_working_copy(environment: dict[str, str]) -> None:
    run = ("-m", "scripts.run", "manage")
    assert manage("migrate", "--verbosity=0", environment=environment, by=run).returncode == 0
    made = manage("shell", "-v0", "-c", MAKE_ADMIN, environment=environment, by=run)
    assert made.stdout.strip() == environment["DATABASE_URL"].rpartition("/")[2], made.stderr
    changed = manage("changepassword", "nobody", environment=environment, by=run)
    assert (changed.returncode, changed.stderr) == (1, "CommandError: user 'nobody' does not exist\n")
    assert not list(runs.RUNS.glob(f"{os.getpid()}.json"))


MAKE_ADMIN = """
from accounts.models import User
from django.db import connection
User.objects.create_superuser("admin", "", "a long and unusual one")
print(connection.settings_dict["NAME"])
"""


def test_manage_py_without_an_environment_says_what_to_set() -> None:
    bare = {"PATH": os.environ["PATH"]}
    said = manage("check", environment=bare, by=("manage.py",))
    assert said.returncode == 1
    assert said.stderr == (
        "SECRET_KEY is not set. Set it to 50 random characters, or DEBUG=1 for development. "
        "Or type ./run manage ..: it knows the Python, the servers and the data of this working copy.\n"
    )
    said = manage("check", environment=bare, by=("-S", "manage.py"))
    assert said.returncode == 1
    assert said.stderr.startswith(f"{sys.executable} has no Django: use a Python that has what requirements.txt pins.")
    assert "Traceback" not in said.stderr
