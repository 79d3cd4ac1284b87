"""`./run up`: everything runs, what dies is started again, and nothing is left when it ends."""

import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPConnection
from io import StringIO

import pytest
from rich.console import Console

from scripts.place import ROOT, SetupError, free_port
from scripts.run import application
from scripts.run.application import Service
from scripts.run.client import Client
from scripts.run.crew import Crew, Printer
from scripts.servers import postgresql
from scripts.servers.process import Process, birth, descendants
from tests.queues.events import events
from tests.waiting import until


class Up:
    """A `./run up` and what it printed so far."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.program = subprocess.Popen(
            [sys.executable, "-m", "scripts.run", "up"],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.said = ""
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self) -> None:
        assert self.program.stdout is not None
        with self.program.stdout as output:
            for line in output:
                self.said += line

    def find(self, words: str) -> Process:
        """The one process of it whose command line has `words`."""
        for process in descendants(self.program.pid):
            with open(f"/proc/{process.pid}/cmdline") as file:  # noqa: PTH123
                if words in file.read().replace("\0", " "):
                    return process
        raise AssertionError(f"no process {words}")


@contextmanager
def up(environment: dict[str, str]) -> Iterator[Up]:
    running = Up(environment)
    try:
        yield running
    finally:
        if running.program.poll() is None:
            running.program.kill()
        running.program.wait()
        running.reader.join(10)


@pytest.mark.timeout(400)  # ten processes start, twice; on two busy cores that takes its time
def test_it_runs_until_it_is_told_to_stop(environment: dict[str, str]) -> None:
    port = free_port()
    with up(environment | {"PORT": str(port)}) as running:
        until(lambda: "\nready" in running.said, 150, "everything is ready")
        assert f"http://127.0.0.1:{port}/admin/" in running.said
        assert re.search(r"user admin, password \S{12}", running.said)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health/ready") as answer:
            assert answer.status == 200
        scraped = [scrapes_counted(port) for _ in range(6)]
        assert scraped == list(range(scraped[0], scraped[0] + 6)), "its processes count together"

        assert told_of_a_request(port)[-1] == "succeeded"
        assert most_connections(port, environment["DATABASE_URL"]) <= postgresql.WANTED

        again = subprocess.run(
            [sys.executable, "-m", "scripts.run", "up"],
            cwd=ROOT,
            env=environment | {"PORT": str(port)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert again.returncode == 1
        assert re.search(r"it runs already \(process .*\b\d+.*\); \./run stop ends it", again.stderr)

        dispatcher = running.find("manage.py dispatch")
        os.kill(dispatcher.pid, signal.SIGKILL)
        until(lambda: "ended with status -9; started again" in running.said, 150, "the death is said")
        until(lambda: running.said.count("leading") == 2, 150, "another dispatcher leads")

        family = descendants(running.program.pid)
        running.program.terminate()
        assert running.program.wait(40) == 0
        running.reader.join(10)
        assert "stopped" in running.said
        until(lambda: not any(process.alive() for process in family), 10, "nothing is left")

    with up(environment | {"PORT": str(port)}) as running:
        until(lambda: "\nready" in running.said, 150, "everything is ready")
        assert "password" not in running.said  # the administrator is there already
        workers = [process for process in descendants(running.program.pid) if not is_guard(process)]
        running.program.kill()
        until(lambda: not any(worker.alive() for worker in workers), 60, "nothing outlives a killed ./run")


def scrapes_counted(port: int) -> int:
    """How many answers to /metrics the API has counted, whichever of its processes is asked."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        text = answer.read().decode()
    found = re.search(r'ordered_work_http_requests_total\{.*route="metrics".* (\d+)', text)
    return int(found[1]) if found else 0


def most_connections(port: int, database_url: str) -> int:
    """How many connections to PostgreSQL there are while all threads of the API, a stream and all workers are busy."""
    client, name = Client(port), "bob"
    person = {"username": name, "password": secrets.token_urlsafe()}
    client.get("POST", "/api/v1/auth/register", person)
    token = client.get("POST", "/api/v1/auth/token", person)["access"]
    with postgresql.connect(database_url) as connection, ThreadPoolExecutor(16) as many:
        sent = [
            many.submit(Client(port, token).submit, [{"kind": "demo.steps", "payload": {"steps": 2, "delay_ms": 100}}])
            for _ in range(200)
        ]
        count = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        most = 0
        while not all(one.done() for one in sent):
            row = connection.execute(count).fetchone()
            most = max(most, row[0] if row else 0)
        assert {one.result() for one in sent} == {"accepted"}
    return most


def told_of_a_request(port: int) -> list[str]:
    """The statuses of a new user's first request that a stream tells, at the API's own address."""
    person = {"username": "ada", "password": secrets.token_urlsafe()}
    client = Client(port)
    client.get("POST", "/api/v1/auth/register", person)
    client = Client(port, client.get("POST", "/api/v1/auth/token", person)["access"])
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", "/api/v1/queue/events", headers=client.headers)
    stream = connection.getresponse()
    assert stream.getheader("Content-Type") == "text/event-stream"
    client.submit([{"kind": "demo.echo", "payload": None}])
    told: list[str] = []
    for event in events(line.decode().rstrip("\n") for line in stream):
        if event.name == "request":
            told.append(event.data["status"])
        if told[-1:] == ["succeeded"]:
            break
    connection.close()
    return told


def is_guard(process: Process) -> bool:
    with open(f"/proc/{process.pid}/cmdline") as file:  # noqa: PTH123
        return "guard" in file.read()


def test_a_taken_port_is_said_before_anything_starts(environment: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with up(environment | {"PORT": str(port)}) as running:
            assert running.program.wait(30) == 1
            running.reader.join(10)
    assert running.said.startswith(f"PORT={port} cannot be used (Address already in use).")


@pytest.mark.parametrize("port", ["x", "0", "65536", "-1", "8_000", "٣"])
def test_a_port_that_is_none_is_said(port: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", port)
    with pytest.raises(SetupError, match="is no port: write a number from 1 to 65535"):
        application.choose_port()


def test_without_port_a_free_one_is_found(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("PORT", raising=False)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        usual = taken.getsockname()[1]
        monkeypatch.setattr(application, "USUAL_PORT", usual)
        assert application.choose_port() != usual
    assert f"port {usual} is taken: this one gets " in capsys.readouterr().out
    assert application.choose_port() == usual
    other = subprocess.run(
        [sys.executable, "-c", "from scripts.run import application; print(application.choose_port())"],
        cwd=ROOT,
        env=os.environ | {"PORT": str(usual)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "another ./run starts there" in other.stderr


def test_what_dies_again_and_again_is_started_ever_more_slowly() -> None:
    said: list[str] = []
    dying = Service("dying", ["sh", "-c", "echo I die; exit 3"], "red")
    crew = Crew([dying], dict(os.environ), lambda _, line: said.append(line))

    def ended() -> list[str]:
        crew.tend()
        return [line for line in said if line.startswith("ended")]

    try:
        until(lambda: len(ended()) == 3, 60, "it died three times")
    finally:
        crew.kill()
    assert ended()[:3] == [f"ended with status 3; started again in {pause} s" for pause in ("0.5", "1", "2")]
    assert "I die" in said


def test_what_a_dead_process_started_ends_before_it_is_started_again() -> None:
    said: list[str] = []
    forgetful = Service("forgetful", ["sh", "-c", "sleep 60 & echo $!; sleep 0.5; kill -9 $$"], "red")
    crew = Crew([forgetful], dict(os.environ), lambda _, line: said.append(line))

    def ended() -> bool:
        crew.tend()
        return any(line.startswith("ended") for line in said)

    try:
        crew.tend()
        until(lambda: said, 60, "it said what it started")
        left = Process(int(said[0]), birth(int(said[0])))
        until(ended, 60, "it died")
        until(lambda: not left.alive(), 60, "what it had started is gone as well")
    finally:
        crew.kill()


@pytest.mark.parametrize("terminal", [True, False])
def test_lines_come_whole_after_their_process_and_bring_nothing_but_colour(terminal: bool) -> None:
    printer = Printer()
    printer.console = Console(
        file=StringIO(), force_terminal=terminal, color_system="standard" if terminal else None, soft_wrap=True
    )
    for line in ("as it is [bold] äß", "\x1b[31mred\x1b[0m", "a \x1b]0;title\x07 of its own", "x" * 200):
        printer(Service("api", [], "cyan"), line)
    assert isinstance(printer.console.file, StringIO)
    name, red = ("\x1b[36mapi        \x1b[0m", "\x1b[31mred\x1b[0m") if terminal else ("api        ", "red")
    lines = printer.console.file.getvalue().splitlines()
    assert lines == [f"{name}as it is [bold] äß", f"{name}{red}", f"{name}a 0;title of its own", f"{name}{'x' * 200}"]


def test_who_prints_goes_on_when_nobody_reads_any_more() -> None:
    class Unread(StringIO):
        def flush(self) -> None:
            raise BrokenPipeError

    printer = Printer()
    printer.console = Console(file=Unread(), color_system="standard", force_terminal=True)
    printer.names = {"api": "api "}
    for line in ("plain", "\x1b[31mred\x1b[0m"):
        printer(Service("api", [], "cyan"), line)
    assert printer.unread
