"""`./run demo`: three users, a flood among them, on the real processes; then what was promised is checked."""

import json
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.live import Live

from scripts.place import LOCAL, ROOT, SetupError
from scripts.run import demo_checks
from scripts.run.application import SMALL, Service, choose_port, environment, migrate, readiness, services
from scripts.run.client import ACCEPTED, Client
from scripts.run.crew import Crew
from scripts.run.crowd import Demonstrator, crowd
from scripts.run.up import recorded
from scripts.servers.borrowing import borrowed
from scripts.servers.process import signals_interrupt

LOG = LOCAL / "demo.log"
START_SECONDS = 60.0
WORK_SECONDS = 45.0


def main(_: list[str]) -> int:
    """0 when every promise was kept, 1 when not."""
    signals_interrupt()
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
    started = time.monotonic()
    with recorded(), borrowed("demo", keep_servers=True) as places:
        port = choose_port()
        variables = environment(places, SMALL)
        migrate(variables)
        with running(services(port, size=SMALL), variables) as crew:
            wait_until_ready(crew, port)
            users = crowd()
            for user in users:
                register(user, port)
            first_request(users[1], port)
            console.print(
                f"ready after {time.monotonic() - started:.1f} s; the processes' log: {LOG.relative_to(ROOT)}"
            )
            began = time.monotonic()
            play(console, crew, users, port)
            seconds = time.monotonic() - began
            for user in users:
                user.requests = Client(port, user.token).requests()
    return demo_checks.give(console, users, seconds)


@contextmanager
def running(table: list[Service], variables: dict[str, str]) -> Iterator[Crew]:
    """The processes, for as long as the block runs; what they print goes to the log."""
    LOG.parent.mkdir(exist_ok=True)
    with LOG.open("w") as log:

        def write(service: Service, line: str) -> None:
            if not log.closed:
                print(f"{service.name:11}{line}", file=log, flush=True)

        crew = Crew(table, variables, write)
        try:
            yield crew
            crew.stop()
        finally:
            crew.kill()


def wait_until_ready(crew: Crew, port: int) -> None:
    """Raises SetupError with what /health/ready says when it takes too long."""
    deadline = time.monotonic() + START_SECONDS
    ready, answer = False, ""
    while not ready:
        if time.monotonic() > deadline:
            raise SetupError(f"Not ready after {START_SECONDS:.0f} s: {answer}. What the processes said: {LOG}.")
        crew.tend()
        time.sleep(0.05)
        ready, answer = readiness(port)


def register(user: Demonstrator, port: int) -> None:
    client, password = Client(port), secrets.token_urlsafe(12)
    login = {"username": user.name, "password": password}
    client.get("POST", "/api/v1/auth/register", login)
    user.token = client.get("POST", "/api/v1/auth/token", login)["access"]


def first_request(user: Demonstrator, port: int) -> None:
    """Returns when it is done: the workers are there. Raises SetupError when none comes."""
    client = Client(port, user.token)
    first = client.get("POST", "/api/v1/requests", {"kind": "demo.echo", "payload": "is anybody there?"})
    user.answers[ACCEPTED] += 1
    deadline = time.monotonic() + START_SECONDS
    while client.get("GET", f"/api/v1/requests/{first['id']}")["status"] != "succeeded":
        if time.monotonic() > deadline:
            raise SetupError(f"No worker ran the first request within {START_SECONDS:.0f} s. What they said: {LOG}.")
        time.sleep(0.02)


def play(console: Console, crew: Crew, users: list[Demonstrator], port: int) -> None:
    """Submits everything and shows the queues until they are empty, or the time is over."""
    senders = [(user, sender) for user in users for sender in send(user, port)]
    eyes = {user.name: Client(port, user.token) for user in users}
    began = spoke = time.monotonic()
    with Live(console=console, auto_refresh=False) as live:
        while True:
            crew.tend()
            for user in users:
                user.queue = eyes[user.name].get("GET", "/api/v1/queue")
            now = time.monotonic()
            if console.is_terminal:
                live.update(demo_checks.progress(users, now - began), refresh=True)
            elif now - spoke > 1:
                spoke = now
                console.print(demo_checks.line(users, now - began))
            sent = all(sender.poll() is not None for _, sender in senders)
            if sent and not any(user.queue["depth"] for user in users):
                break
            if now - began > WORK_SECONDS:
                break
            time.sleep(0.1)
    for user, sender in senders:
        user.answers.update(receive(sender))


def send(user: Demonstrator, port: int) -> list[subprocess.Popen[str]]:
    """Starts the user's programs."""
    started = []
    for program in user.programs:
        sender = subprocess.Popen(
            [sys.executable, "-m", "scripts.run.client", str(port), str(program.connections)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert sender.stdin is not None
        json.dump({"token": user.token, "batches": program.batches}, sender.stdin)
        sender.stdin.close()
        started.append(sender)
    return started


def receive(sender: subprocess.Popen[str]) -> dict[str, int]:
    """What a program counted; nothing when it failed or is not done."""
    if sender.poll() is None:
        sender.kill()
    assert sender.stdout is not None
    answer = sender.stdout.read()
    sender.wait()
    return dict(json.loads(answer)) if sender.returncode == 0 else {}
