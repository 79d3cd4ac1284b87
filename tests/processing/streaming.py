"""The API's process, and clients that stream from it."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from typing import Any, cast

from processing.handlers import HandlerRequest
from scripts.place import ROOT, free_port
from tests.queues.events import Event, events
from tests.waiting import until

PATH = "/api/v1/queue/events"
LIMITS = {"STREAMS": "4", "STREAMS_PER_USER": "3", "API_THREADS": "3"}


@dataclass
class Server:
    """One process that serves streams."""

    port: int
    process: subprocess.Popen[bytes]

    def answers(self) -> bool:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", "/health/live")
            return connection.getresponse().status == 200
        except OSError:
            assert self.process.poll() is None, "it has ended"
            return False
        finally:
            connection.close()


@contextmanager
def serving(port: int = 0, **environment: str) -> Iterator[Server]:
    port = port or free_port()
    command = [sys.executable, "-m", "granian", "--host", "127.0.0.1", "--port", str(port), "--log-level", "error"]
    command += ["--interface", "asgi", "project.asgi:application"]
    process = subprocess.Popen(command, cwd=ROOT, env=os.environ | LIMITS | environment)
    try:
        yield Server(port, process)
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@dataclass
class Client:
    """Reads a stream in a thread of its own, until it ends."""

    port: int
    token: str
    last_id: str = ""
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    comments: list[str] = field(default_factory=list)
    ended: bool = False

    def __post_init__(self) -> None:
        self.connection = HTTPConnection("127.0.0.1", self.port, timeout=60)
        sent = {"Authorization": f"Bearer {self.token}"} | ({"Last-Event-ID": self.last_id} if self.last_id else {})
        self.connection.request("GET", PATH, headers=sent)
        answer = self.connection.getresponse()
        self.status, self.headers = answer.status, {name.lower(): value for name, value in answer.getheaders()}
        self.answer = answer
        if self.status == 200:
            threading.Thread(target=self._read, daemon=True).start()
        else:
            self.body = answer.read()
            self.connection.close()

    def _read(self) -> None:
        try:
            for event in events(self._lines()):
                self.events.append(event)
        except (OSError, HTTPException, ValueError, AttributeError):
            pass  # the test has closed it
        self.ended = True

    def _lines(self) -> Iterator[str]:
        while line := self.answer.readline():
            text = line.decode().rstrip("\n")
            if text.startswith(":"):
                self.comments.append(text)
            yield text

    def close(self) -> None:
        if self.connection.sock is not None:
            self.connection.sock.shutdown(2)
        self.connection.close()

    @property
    def summaries(self) -> list[tuple[Any, ...]]:
        return [event.summary for event in self.events if event.name == "request"]

    def knows(self, *told: Any) -> bool:
        return told in self.summaries


def opening(server: Server, token: str, full: bool = False, last_id: str = "") -> Client:
    """A client whose stream is open or refused; that the server is `full` of other tests' streams soon passes."""

    def opened() -> Client | None:
        client = Client(server.port, token, last_id)
        return client if full or client.status != 503 else None

    return cast("Client", until(opened, 60, "it has room"))


def answer(request: HandlerRequest) -> str:
    return "an answer"
