"""Servers that mean well and servers that don't. They are real, and listen on this machine."""

import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import orjson
import pytest
import uuid_utils.compat as uuid
from django.conf import settings

from processing import handlers
from processing.handlers import HandlerRequest

Handle = Callable[["Visit"], object]


class Visit(BaseHTTPRequestHandler):
    """One request as the server sees it."""

    protocol_version = "HTTP/1.1"
    server: "Place"
    content: bytes

    def handle_one_request(self) -> None:
        self.raw_requestline = self.rfile.readline(65537)
        self.close_connection = True
        if self.raw_requestline and self.parse_request():
            self.content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.server.visits.append(self)
            self.server.pages[self.path.partition("?")[0]](self)

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def drip(self, beginning: bytes, drop: bytes) -> None:
        """Send something every now and then, as long as the other side stays."""
        self.wfile.write(beginning)
        while not self.server.closing.wait(0.05):
            try:
                self.wfile.write(drop)
            except OSError:
                self.server.left.set()
                return

    def log_message(self, *_: object) -> None:
        pass


class Place(ThreadingHTTPServer):
    """A server on a port of its own; `page` says what it does."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Visit)
        self.visits: list[Visit] = []
        self.pages: dict[str, Handle] = {}
        self.closing = threading.Event()
        self.left = threading.Event()

    def page(self, path: str = "/") -> Callable[[Handle], Handle]:
        def declare(handle: Handle) -> Handle:
            self.pages[path] = handle
            return handle

        return declare

    def at(self, path: str = "/", host: str = "127.0.0.1", scheme: str = "http") -> str:
        return f"{scheme}://{host}:{self.server_port}{path}"

    def handle_error(self, *_: object) -> None:
        pass


def serving() -> Iterator[Place]:
    place = Place()
    thread = threading.Thread(target=place.serve_forever, args=(0.01,))
    thread.start()
    yield place
    place.closing.set()
    place.shutdown()
    thread.join(10)
    place.server_close()


@pytest.fixture
def place() -> Iterator[Place]:
    yield from serving()


@pytest.fixture
def elsewhere() -> Iterator[Place]:
    yield from serving()


@pytest.fixture(autouse=True)
def allow(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    def named(text: str) -> None:
        monkeypatch.setattr(settings.ENV, "http_call_allow", text)

    named("127.0.0.1")
    return named


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[list[str]]]:
    """What names resolve to: a list of addresses for each time they are asked for; the last stays."""
    known: dict[str, list[list[str]]] = {}
    system = socket.getaddrinfo

    def look_up(host: bytes, port: int, **options: Any) -> Any:
        answers = known.get(host.decode())
        if answers is None:
            return system(host, port, **options)
        addresses = answers.pop(0) if len(answers) > 1 else answers[0]
        return [entry for address in addresses for entry in system(address, port, **options)]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return known


def request() -> HandlerRequest:
    return HandlerRequest(uuid.uuid7(), uuid.uuid7(), "http.call", 1, 1, 1, "trace")


def call(url: str, method: str = "GET", asked: HandlerRequest | None = None, **payload: Any) -> Any:
    """Run the handler as a worker does."""
    kind, function = handlers.find("http.call", 1)
    text = orjson.dumps({"method": method, "url": url, **payload}).decode()
    return orjson.loads(handlers.call(function, kind, asked or request(), text))
