"""The image, built for real, runs every process of the project on a root that cannot be written to.

Takes a minute and a base to build on, so it runs where IMAGE_BASE names one and is skipped elsewhere.
"""

import json
import os
from collections.abc import Iterator
from functools import partial
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from scripts.place import free_port
from scripts.servers.borrowing import borrowed
from scripts.servers.process import Process
from scripts.servers.servers import Servers
from tests.docker.compose import ours
from tests.docker.image import Builder, Image, why_not
from tests.waiting import until

pytestmark = [pytest.mark.skipif(why_not() is not None, reason=str(why_not())), pytest.mark.timeout(900)]
PROCESSES = [name for name in ours() if name != "migrate"]


@pytest.fixture(scope="module")
def builder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Builder]:
    with Builder(tmp_path_factory.mktemp("images")) as builder:
        yield builder


@pytest.fixture(scope="module")
def base(builder: Builder) -> str:
    return builder.base(os.environ["IMAGE_BASE"])


@pytest.fixture(scope="module")
def image(builder: Builder, base: str) -> Image:
    return builder.build("service", base)


@pytest.fixture
def servers() -> Iterator[Servers]:
    """Places of this test's own on the machine's servers: the database is empty, there is not even a table."""
    with borrowed("image", keep_servers=False) as servers:
        yield servers


@pytest.fixture
def given(servers: Servers, tmp_path: Path) -> Path:
    """The secrets, as files."""
    folder = tmp_path / "given"
    folder.mkdir()
    urls = {name: getattr(servers, name) for name in ("database_url", "rabbitmq_url", "redis_url")}
    for name, value in {"secret_key": "k" * 50, **urls}.items():
        (folder / name).write_text(value)
    return folder


def environment(servers: Servers, port: int) -> dict[str, str]:
    """As compose.yml has it, but on a port of this process's own: all share the machine's network."""
    settings = {
        "SECRETS_DIR": "/run/secrets",
        "ALLOWED_HOSTS": "localhost",
        "OPTIONAL_KINDS": "demo",
        "TRUSTED_PROXIES": "1",
    }
    return settings | {"QUEUE_PREFIX": servers.queue_prefix, "HEALTH_PORT": str(port)}


def test_every_process_runs_from_the_image(image: Image, servers: Servers, given: Path, tmp_path: Path) -> None:
    migrated = image.run(given, environment(servers, 8000), ours()["migrate"]["command"])
    assert migrated.returncode == 0, migrated.stderr
    ports = {name: free_port() for name in PROCESSES}
    running: dict[str, Process] = {}
    try:
        for name, port in ports.items():
            words = ours()[name].get("command", image.configuration["Cmd"])
            words = [str(port) if word == "8000" else word for word in words]
            running[name] = image.start(given, environment(servers, port), words, tmp_path / f"{name}.log")
        for name, port in ports.items():
            until(partial(healthy, image, given, port), 120, f"{name} is healthy")
        until(lambda: all(ready(port) for port in ports.values()), 120, "all are ready")
        assert carried_out(ports) == {"said": "hello"}
        for process in running.values():
            process.signal(process.stop_signal)
        for name, process in running.items():
            assert process.wait(30), f"{name} did not stop: {(tmp_path / f'{name}.log').read_text()}"
    except AssertionError:
        for name in running:
            print(f"== {name}\n{(tmp_path / f'{name}.log').read_text()[-3000:]}")
        raise
    finally:
        for process in running.values():
            process.kill()


def healthy(image: Image, given: Path, port: int) -> bool:
    """What the image's own HEALTHCHECK says."""
    _, *words = image.configuration["Healthcheck"]["Test"]
    return image.run(given, {}, [word.replace("8000", str(port)) for word in words]).returncode == 0


def ready(port: int) -> bool:
    try:
        with urlopen(f"http://127.0.0.1:{port}/health/ready", timeout=10) as answer:
            return answer.status == 200
    except OSError:
        return False


def carried_out(ports: dict[str, int]) -> Any:
    """The result of one request of a new user, from registration to the stream's word that a worker has done it."""
    person = {"username": "ada", "password": "a long and unusual one"}
    ask(ports["api"], "POST", "/api/v1/auth/register", person)
    token = ask(ports["api"], "POST", "/api/v1/auth/token", person)["access"]
    with answered(ports["events"], "GET", "/api/v1/queue/events", None, token) as stream:
        work = {"kind": "demo.echo", "payload": {"said": "hello"}}
        accepted = ask(ports["api"], "POST", "/api/v1/requests", work, token)
        told = (json.loads(line[5:]) for line in stream if line.startswith(b"data:"))
        return next(one["result"] for one in told if one.get("id") == accepted["id"] and one["status"] == "succeeded")


def ask(port: int, method: str, path: str, body: Any, token: str = "") -> Any:
    with answered(port, method, path, body, token) as answer:
        return json.load(answer)


def answered(port: int, method: str, path: str, body: Any, token: str) -> HTTPResponse:
    """The answer to what nginx passes on."""
    headers = {"Content-Type": "application/json", "X-Forwarded-Proto": "https", "X-Forwarded-For": "192.0.2.1"}
    headers |= {"Authorization": f"Bearer {token}"} if token else {}
    sent = None if body is None else json.dumps(body).encode()
    connection = HTTPConnection("localhost", port, timeout=60)
    connection.request(method, path, sent, headers)
    answer = connection.getresponse()
    assert answer.status < 300, (answer.status, answer.read())
    return answer


def test_nobody_can_change_what_runs(image: Image, given: Path) -> None:
    assert image.run(given, {}, ["id", "-u"]).stdout.strip() == "10001"
    for path in ("/app/manage.py", "/opt/venv/new", "/run/secrets/secret_key", "/etc/passwd"):
        assert image.run(given, {}, ["python", "-c", f"open({path!r}, 'a')"]).returncode != 0, path
    assert image.run(given, {}, ["python", "-c", "import tempfile; tempfile.TemporaryFile()"]).returncode == 0


def test_nothing_is_in_the_image_that_does_not_run(image: Image) -> None:
    app = {path.name for path in (image.root / "app").iterdir()}
    folders = {"accounts", "queues", "processing", "project", "staticfiles", "__pycache__"}
    assert app == folders | {"manage.py", "requirements.txt"}
    assert not (image.root / "app" / "project" / "local").exists()
    assert not list((image.root / "opt" / "venv" / "bin").glob("pip*"))
    assert (image.root / "app" / "queues" / "__pycache__").exists()  # compiled: nothing is at the start


def test_nginx_has_the_static_files_of_the_same_build(builder: Builder, base: str, image: Image) -> None:
    edge = builder.build("edge", base)
    served, collected = edge.root / "srv/static", image.root / "app/staticfiles"
    names = {path.relative_to(served) for path in served.rglob("*")}
    assert names == {path.relative_to(collected) for path in collected.rglob("*")}
    assert Path("admin/css/base.css") in names
    assert (edge.root / "etc/nginx/templates/service.conf.template").exists()
    assert edge.configuration["User"] == "101:101"
