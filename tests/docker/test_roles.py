"""What compose.yml gives to the service: a role that changes rows and no schema, a RabbitMQ user of one vhost."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, urlsplit

import pika
import pika.exceptions
import psycopg
import pytest

from scripts.place import ROOT
from scripts.servers.postgresql import Postgresql
from scripts.servers.rabbitmq import Rabbitmq
from tests.docker.compose import DOCKER

ROLES = ("owner", "service", "monitor")
SCRIPT = DOCKER / "postgres" / "roles.sql"

# The whole way, beside a dispatcher and a worker: accepted, run, recorded, pruned, repaired, erased.
WHOLE_WAY = """
import django
django.setup()
from django.conf import settings
settings.ALLOWED_HOSTS = ["*"]
from django.core.management import call_command
from django.test import Client
from queues.models import Request, UserQueue
from queues.lifecycle.outbox import Shard, reap
from tests.waiting import until

client = Client()
person = {"username": "ada", "password": "a long and unusual one"}
assert client.post("/api/v1/auth/register", person, "application/json").status_code == 201
token = client.post("/api/v1/auth/token", person, "application/json").json()["access"]
headers = {"Authorization": f"Bearer {token}"}
for number in range(3):
    work = {"kind": "demo.echo", "payload": number}
    sent = client.post("/api/v1/requests", work, "application/json", headers=headers)
    assert sent.status_code == 202, sent.content
said = Request.objects.values_list("status", flat=True)
until(lambda: Request.objects.filter(status="succeeded").count() == 3, 60, lambda: list(said.all()))
call_command("requests", "prune", "--older-than", "0s", "--yes", "--reason", "a test")
assert not Request.objects.exists()
assert reap(Shard(0, 1), 0.0, 0, 10)
call_command("doctor", "--repair", "--all")
call_command("user", "erase", "ada", "--yes", "--reason", "a test")
assert not UserQueue.objects.exists()
print("all done")
"""
REFUSED = {
    "disable the guard": "ALTER TABLE accounts_securityevent DISABLE TRIGGER accounts_securityevent_kept",
    "disable all triggers": "ALTER TABLE accounts_securityevent DISABLE TRIGGER ALL",
    "drop the guard": "DROP TRIGGER accounts_securityevent_kept ON accounts_securityevent",
    "drop its function": "DROP FUNCTION accounts_securityevent_kept() CASCADE",
    "replace its function": "CREATE OR REPLACE FUNCTION accounts_securityevent_kept() RETURNS trigger"
    " LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
    "rename its function": "ALTER FUNCTION accounts_securityevent_kept() RENAME TO other",
    "pass it by": "SET session_replication_role = replica",
    "truncate": "TRUNCATE accounts_securityevent",
    "change a line": "UPDATE accounts_securityevent SET detail = 'nothing happened'",
    "delete a line": "DELETE FROM accounts_securityevent",
    "drop the table": "DROP TABLE accounts_securityevent",
    "own the table": "ALTER TABLE accounts_securityevent OWNER TO ordered_work_service",
    "become the owner": "SET ROLE ordered_work_owner",
    "do more": "ALTER ROLE ordered_work_service SUPERUSER",
    "make a table": "CREATE TABLE mine ()",
    "make a table for a while": "CREATE TEMP TABLE mine ()",
    "make a role": "CREATE ROLE mine",
    "read the server's files": "SELECT pg_read_file('/etc/passwd')",
    "run a program": "COPY accounts_user TO PROGRAM 'cat'",
}


@pytest.fixture(scope="module")
def postgresql(secrets: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgresql]:
    """As compose.yml starts it: roles with the passwords of docker/make-secrets, then migrated by the owner."""
    with Postgresql(tmp_path_factory.mktemp("roles") / "postgresql") as server:
        make_roles(server, secrets)
        migrate(url_of(server, secrets, "owner"))
        yield server


def make_roles(server: Postgresql, secrets: Path) -> None:
    """With the passwords where the container has them."""
    done = psql(server, text=SCRIPT.read_text().replace("/run/secrets", str(secrets)))
    assert done.returncode == 0, done.stderr


def psql(server: Postgresql, *words: str, text: str) -> subprocess.CompletedProcess[str]:
    command = ["psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", *words, server.url]
    return subprocess.run(command, input=text, capture_output=True, text=True, check=False)


def url_of(server: Postgresql, secrets: Path, role: str) -> str:
    password = (secrets / f"postgres_{role}_password").read_text()
    return at_role(server, role, password)


def at_role(server: Postgresql, role: str, password: str) -> str:
    parts = urlsplit(server.url)
    return parts._replace(netloc=f"ordered_work_{role}:{quote(password)}@127.0.0.1:{parts.port}").geturl()


def migrate(url: str) -> None:
    done = manage(url, "migrate", "--no-input", "-v", "0")
    assert done.returncode == 0, done.stderr


def manage(url: str, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "DATABASE_URL": url}
    command = [sys.executable, "manage.py", *words]
    return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


def test_the_service_s_role_does_all_that_the_service_does(postgresql: Postgresql, secrets: Path) -> None:
    environment = {**os.environ, "DATABASE_URL": url_of(postgresql, secrets, "service"), "QUEUE_PREFIX": "roles."}
    commands = [["dispatch"], ["work", "--processes", "1", "--threads", "2"]]
    running = [
        subprocess.Popen([sys.executable, "manage.py", *words], env=environment, cwd=ROOT, stderr=subprocess.PIPE)
        for words in commands
    ]
    try:
        done = subprocess.run(
            [sys.executable, "-c", WHOLE_WAY],
            env=environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    finally:
        for process in running:
            process.terminate()
        logs = [process.communicate(timeout=60)[1].decode() for process in running]
    assert done.stdout.endswith("all done\n"), done.stderr + "".join(logs)
    assert "permission denied" not in done.stderr + "".join(logs)


@pytest.mark.parametrize("what", REFUSED)
def test_the_service_s_role_cannot(postgresql: Postgresql, secrets: Path, what: str) -> None:
    with psycopg.connect(url_of(postgresql, secrets, "service")) as connection:
        connection.execute(
            "INSERT INTO accounts_securityevent (event, user_agent, request_id, detail) VALUES ('logout', '', '', '')"
        )
        with pytest.raises((psycopg.errors.InsufficientPrivilege, psycopg.errors.IntegrityConstraintViolation)):
            connection.execute(REFUSED[what])


def test_the_service_s_role_cannot_migrate(postgresql: Postgresql, secrets: Path) -> None:
    assert "must be owner" in manage(url_of(postgresql, secrets, "service"), "migrate", "accounts", "zero").stderr


def test_the_monitor_s_role_reads_statistics_and_no_row(postgresql: Postgresql, secrets: Path) -> None:
    with psycopg.connect(url_of(postgresql, secrets, "monitor"), autocommit=True) as connection:
        assert connection.execute("SELECT query FROM pg_stat_activity WHERE pid = pg_backend_pid()").fetchone()
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("SELECT * FROM accounts_user")


def test_an_installation_of_one_role_is_handed_over(tmp_path: Path) -> None:
    passwords = {name: f'{name}\'s "own" $ecret' for name in ROLES}
    given = [word for name, password in passwords.items() for word in ("-v", f"{name}_password={password}")]
    with Postgresql(tmp_path / "postgresql") as server:
        migrate(server.url)
        for _ in range(2):  # the second time nothing changes
            done = psql(server, *given, text=SCRIPT.read_text())
            assert done.returncode == 0, done.stderr
        owner, service = (at_role(server, role, passwords[role]) for role in ("owner", "service"))
        with psycopg.connect(service) as connection:
            connection.execute("SELECT count(*) FROM queues_request")
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(REFUSED["disable the guard"])
        with psycopg.connect(owner) as connection:  # as a later migration does
            connection.execute("ALTER TABLE queues_request ADD COLUMN later int")
            connection.execute("CREATE TABLE later (id bigint GENERATED BY DEFAULT AS IDENTITY)")
            connection.execute("ALTER FUNCTION accounts_securityevent_kept() RENAME TO later")
        with psycopg.connect(service) as connection:
            connection.execute("INSERT INTO later DEFAULT VALUES")


class ComposedRabbitmq(Rabbitmq):
    """With the user that docker/make-secrets writes down."""

    secrets: Path

    @property
    def url(self) -> str:
        parts = urlsplit((self.secrets / "rabbitmq_url").read_text())
        return parts._replace(netloc=f"{parts.username}:{parts.password}@127.0.0.1:{self.port}").geturl()

    def prepare(self) -> None:
        super().prepare()
        path = self.folder / "rabbitmq.conf"
        ours = [line for line in path.read_text().splitlines() if not line.startswith("default_")]
        path.write_text("\n".join([*ours, (self.secrets / "rabbitmq.conf").read_text()]))


def test_the_service_s_rabbitmq_user_has_one_vhost_and_administrates_nothing(secrets: Path, tmp_path: Path) -> None:
    server = ComposedRabbitmq(tmp_path / "rabbitmq")
    server.secrets = secrets
    with server:
        control = server.control

        def rabbitmqctl(*words: str) -> str:
            done = subprocess.run(
                [control.program, "-q", *words], env=control.environment, capture_output=True, text=True, check=True
            )
            return done.stdout

        assert [line.split() for line in rabbitmqctl("list_users", "--no-table-headers").splitlines()] == [
            ["ordered_work", "[]"]
        ]
        assert rabbitmqctl("list_vhosts", "--no-table-headers").split() == ["ordered_work"]
        assert control.run("add_vhost", "other")
        with pytest.raises(pika.exceptions.AMQPError):
            pika.BlockingConnection(pika.URLParameters(server.url.replace("/ordered_work", "/other")))
