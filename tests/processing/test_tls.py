"""TLS to each of the three servers: who signed its certificate is checked, and the name in it."""

import os
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import pytest
from pika.adapters.utils.connection_workflow import (
    AMQPConnectionWorkflowFailed,
    AMQPConnectorSocketConnectError,
    AMQPConnectorTransportSetupError,
)

from processing.broker.amqp import _telling_cause
from scripts.place import ROOT
from tests.processing.tls import ADDRESS, NAME, Authority, TlsPostgresql, TlsRabbitmq, TlsRedis, at

# As each of our processes speaks to the server: Django's connection, pika by our parameters and by Dramatiq's.
ASK = {
    "DATABASE_URL": """
from django.db import connection
with connection.cursor() as cursor:
    cursor.execute("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
    print("encrypted" if cursor.fetchone()[0] else "plain")
""",
    "RABBITMQ_URL": """
import django
django.setup()
from processing.broker import rabbitmq
from processing.broker.tokens import broker
rabbitmq.ping(10)
channel = rabbitmq.Channel()
assert channel.open().is_open
print("encrypted" if broker.connection.is_open and all(one.ssl_options for one in broker.parameters) else "plain")
""",
    "REDIS_URL": """
import redis
from django.conf import settings
from project.redis import call
call("PING")
with redis.Redis.from_url(settings.ENV.redis_url) as client:
    print("encrypted" if client.ping() and settings.ENV.redis_url.startswith("rediss") else "plain")
""",
}


class Servers(NamedTuple):
    postgresql: TlsPostgresql
    rabbitmq: TlsRabbitmq
    redis: TlsRedis
    right: Path
    wrong: Path

    def url(self, variable: str, host: str, authority: Path) -> str:
        """The address that checks whether it is `host`, by `authority`."""
        if variable == "DATABASE_URL":
            return f"{at(self.postgresql.url, host)}?sslmode=verify-full&sslrootcert={quote(str(authority))}"
        if variable == "RABBITMQ_URL":
            return f"{self.rabbitmq.tls_url(host)}?ssl_options={quote(repr({'cafile': str(authority)}))}"
        return f"{self.redis.tls_url(host)}?ssl_ca_certs={quote(str(authority))}"


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    folder = tmp_path_factory.mktemp("tls")
    right, wrong = Authority(folder / "right.pem"), Authority(folder / "wrong.pem")
    folder.chmod(0o755)
    ours = (TlsPostgresql(folder / "postgresql"), TlsRabbitmq(folder / "rabbitmq"), TlsRedis(folder / "redis"))
    with ExitStack() as running:
        for one in ours:
            one.authority = right
            running.callback(one.remove)
            one.launch()
        for one in ours:
            one.wait()
        yield Servers(*ours, right.path, wrong.path)


def ask(variable: str, url: str) -> subprocess.CompletedProcess[str]:
    """What one process of ours says whose `variable` is `url`."""
    return subprocess.run(
        [sys.executable, "-c", ASK[variable]],
        env={**os.environ, variable: url},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def refused(said: subprocess.CompletedProcess[str]) -> bool:
    """Whether it ended because of the certificate."""
    told = said.stdout + said.stderr
    reasons = ("certificate", "AMQPConnectionError")  # pika does not always say why
    return bool(said.returncode) and "encrypted" not in said.stdout and any(reason in told for reason in reasons)


@pytest.mark.parametrize("variable", ASK)
def test_a_server_that_proves_who_it_is_is_spoken_to_encrypted(servers: Servers, variable: str) -> None:
    said = ask(variable, servers.url(variable, NAME, servers.right))
    assert said.stdout == "encrypted\n", said.stderr


@pytest.mark.parametrize("variable", ASK)
def test_a_certificate_of_another_authority_is_refused(servers: Servers, variable: str) -> None:
    said = ask(variable, servers.url(variable, NAME, servers.wrong))
    assert refused(said), said


@pytest.mark.parametrize("variable", ASK)
def test_a_certificate_for_another_name_is_refused(servers: Servers, variable: str) -> None:
    said = ask(variable, servers.url(variable, ADDRESS, servers.right))
    assert refused(said), said


def test_of_several_hosts_the_one_that_takes_writes_is_used(servers: Servers) -> None:
    one = servers.postgresql.url
    host = f"{NAME}:{servers.postgresql.port}"
    several = one.replace(f"{ADDRESS}:{servers.postgresql.port}", f"{ADDRESS}:1,{host}")
    trust = f"sslmode=verify-full&sslrootcert={quote(str(servers.right))}"
    said = ask("DATABASE_URL", f"{several}?{trust}&target_session_attrs=read-write")
    assert said.stdout == "encrypted\n", said.stderr


def test_a_refused_certificate_is_told_though_another_address_of_the_name_cannot_be_reached() -> None:
    refusal = ssl.SSLError("certificate verify failed")
    elsewhere = AMQPConnectorSocketConnectError(OSError(99, "no such address"))
    attempts = [AMQPConnectorTransportSetupError(refusal), elsewhere]
    assert _telling_cause(AMQPConnectionWorkflowFailed(attempts)) is refusal
