"""The project's own processes on a developer's machine: their environment, their table, the port, the first steps."""

import json
import os
import secrets
import sys
import urllib.error
import urllib.request
from dataclasses import dataclass

from scripts.place import ROOT, SetupError, free_port, hold, port_taken, secret
from scripts.run import runs
from scripts.servers import postgresql
from scripts.servers.servers import Servers

USUAL_PORT = 8000
DISPATCHER_PORT, WORKER_PORT, WEBHOOKS_PORT = 9101, 9102, 9103


@dataclass(frozen=True)
class Size:
    """How many processes and threads there are. Nearly each thread holds a connection to PostgreSQL."""

    api_processes: int
    api_threads: int
    worker_processes: int
    worker_threads: int


PRODUCTION = Size(api_processes=2, api_threads=8, worker_processes=2, worker_threads=8)
# `./run up` and `demo`: several of them, and tests beside them, have to fit into PostgreSQL's usual 100 connections.
SMALL = Size(api_processes=1, api_threads=6, worker_processes=1, worker_threads=6)
# postgresql.WANTED says how many connections all processes hold at most when they are SMALL.


@dataclass(frozen=True)
class Service:
    """One line of the table: what runs under which name, shown in which colour, and answers on which port."""

    name: str
    command: list[str]
    colour: str
    port: int = 0


def services(port: int, dispatcher_port: int = 0, worker_port: int = 0, size: Size = PRODUCTION) -> list[Service]:
    """All that `./run up` runs: the API's port, and those for the others' probes and metrics (0: none)."""
    granian = [sys.executable, "-m", "granian", "--interface", "asgi", "--host", "127.0.0.1", "--port", str(port)]
    granian += ["--workers", str(size.api_processes), "--log-level", "error", "project.asgi:application"]
    manage = [sys.executable, str(ROOT / "manage.py")]
    return [
        Service("api", granian, "cyan", port),
        Service("dispatcher", [*manage, "dispatch", "--health-port", str(dispatcher_port)], "magenta", dispatcher_port),
        Service(
            "worker",
            [
                *(*manage, "work", "--processes", str(size.worker_processes), "--threads", str(size.worker_threads)),
                *("--health-port", str(worker_port)),
            ],
            "green",
            worker_port,
        ),
    ]


def extras(webhooks_port: int) -> list[Service]:
    """What `./run up` runs beside these, of the apps that are installed. Django is set up."""
    from django.apps import apps

    if not apps.is_installed("processing.webhooks"):
        return []
    words = ["deliver_webhooks", "--threads", "4", "--health-port", str(webhooks_port)]
    return [Service("webhooks", [sys.executable, str(ROOT / "manage.py"), *words], "yellow", webhooks_port)]


def environment(servers: Servers, size: Size = PRODUCTION) -> dict[str, str]:
    """The variables that every process of the project gets: the caller's, and what development needs beside them."""
    development = {"DEBUG": "1", "SECRET_KEY": secret("secret_key")}
    threads = {"API_THREADS": str(size.api_threads), "WORKER_THREADS_MAX": str(size.worker_threads)}
    ours = {"DJANGO_SETTINGS_MODULE": "project.settings", "PYTHONUNBUFFERED": "1"}
    return {**development, **threads, **os.environ, **servers.environment(), **ours}


def choose_port() -> int:
    """PORT, where it is set; else 8000, or a free one when that is taken. Raises SetupError when PORT is no use."""
    asked = os.environ.get("PORT")
    if not asked:
        port = unless_taken(USUAL_PORT)
        if port != USUAL_PORT:
            print(f"port {USUAL_PORT} is taken: this one gets {port}.{perhaps_ours()}", flush=True)
        return port
    if not asked.isascii() or not asked.isdigit() or not 0 < int(asked) < 65536:
        raise SetupError(f"PORT={asked} is no port: write a number from 1 to 65535.")
    wrong = port_taken(int(asked)) or (None if hold(f"port-{asked}") else "another ./run starts there")
    if wrong:
        raise SetupError(
            f"PORT={asked} cannot be used ({wrong}). Choose another, or unset PORT to get a free one.{perhaps_ours()}"
        )
    return int(asked)


def perhaps_ours() -> str:
    """A sentence where this working copy runs already, which may be why a port is taken."""
    others = [pid for pid in runs.numbers() if pid != os.getpid()]
    if not others:
        return ""
    numbers = ", ".join(map(str, others))
    return f" Perhaps it is this working copy's own: it runs already (process {numbers}); ./run stop ends it."


def unless_taken(port: int) -> int:
    """That port, or a free one where somebody has it.

    It is held from now on: another ./run that starts meanwhile takes another, although nobody listens yet.
    """
    while port_taken(port) or not hold(f"port-{port}"):
        port = free_port()
    return port


def migrate(variables: dict[str, str]) -> None:
    """Starts Django in this process and brings the database up to date."""
    os.environ.update(variables, DJANGO_SETTINGS_MODULE="project.settings")
    (ROOT / "staticfiles").mkdir(exist_ok=True)
    from django.core.management import call_command
    from django.db import OperationalError

    from project.start import set_up

    set_up()
    try:
        call_command("migrate", verbosity=0, interactive=False)
    except OperationalError as wrong:
        if postgresql.is_full(wrong):
            raise SetupError(postgresql.FULL) from None
        raise


def first_admin() -> tuple[str, str] | None:
    """Makes an administrator where there is none yet: the name and the password, which is stored nowhere readable."""
    from accounts.models import User

    if User.objects.filter(is_superuser=True).exists():
        return None
    name = "admin"
    while User.objects.filter(username=name).exists():
        name = f"admin-{secrets.token_hex(2)}"
    password = secrets.token_urlsafe(12)
    User.objects.create_superuser(name, "", password)
    return name, password


def readiness(port: int) -> tuple[bool, str]:
    """Whether GET /health/ready says 200 with every check in order, and what it said. A queue may be blocked."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health/ready", timeout=5) as answer:
            body = json.load(answer)
    except urllib.error.HTTPError as refused:
        return False, f"{refused.code} {refused.read(500).decode(errors='replace')}"
    except (OSError, ValueError) as wrong:
        return False, str(wrong)
    checks = body.get("checks", {})
    return all(found == "ok" for name, found in checks.items() if name != "queues"), json.dumps(body)
