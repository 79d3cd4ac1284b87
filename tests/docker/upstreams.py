"""What nginx has behind it in tests: the real API, and a stand-in that shows what arrives."""

import os
import socket
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.error import URLError
from urllib.request import urlopen

import orjson

from scripts.place import ROOT
from scripts.servers.process import Process, launch
from tests.docker.compose import image_command
from tests.waiting import until

ESTABLISHED = "01"


class Api:
    """The API as the image runs it, in production's settings, at one loopback address of its own."""

    def __init__(self, address: str, port: int, log: Path) -> None:
        self.address, self.port, self.log = address, port, log
        self.process: Process | None = None

    def __enter__(self) -> Self:
        kept = {name: value for name, value in os.environ.items() if name != "DEBUG"}
        production = {"TRUSTED_PROXIES": "1", "ALLOWED_HOSTS": "localhost", "REGISTRATIONS_PER_MINUTE": "1000"}
        with self.log.open("ab") as output:
            self.process = launch(
                api_command(self.address, self.port), environment=kept | production, output=output, folder=ROOT
            )
        return self

    def wait(self) -> None:
        """Returns when it answers."""
        process = self.process
        assert process is not None
        until(lambda: self.answers() or not process.alive(), 60, self.log.read_text)
        assert process.alive(), self.log.read_text()

    def __exit__(self, *_: object) -> None:
        if self.process is not None:
            self.process.kill()

    def answers(self) -> bool:
        try:
            with urlopen(f"http://{self.address}:{self.port}/health/ready", timeout=5) as answer:
                return answer.status == 200
        except (URLError, OSError):
            return False

    def held(self) -> int:
        """How many requests it has taken and not answered: nginx keeps no connection for another one."""
        address = int.from_bytes(socket.inet_aton(self.address), sys.byteorder)
        here = [f"{address:08X}:{self.port:04X}", ESTABLISHED]
        lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
        return sum(line.split()[2:4] == here for line in lines)


def api_command(address: str, port: int) -> list[str]:
    """The image's own command, at another address."""
    moved = {"0.0.0.0": address, "8000": str(port)}
    return [sys.executable, "-m", *(moved.get(word, word) for word in image_command())]


class StandIn(ThreadingHTTPServer):
    """Answers with what it was asked, as JSON; a stream sends `first` and, once `go_on` is set, `second`."""

    daemon_threads = True

    def __init__(self, address: str = "127.0.0.1", port: int = 0) -> None:
        super().__init__((address, port), _Handler)
        self.asked: list[str] = []
        self.go_on = threading.Event()

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()

    def handle_error(self, request: object, client_address: object) -> None:
        """Who hangs up is nothing to tell of."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: StandIn

    def do_GET(self) -> None:
        self.server.asked.append(f"{self.command} {self.path}")
        if self.path == "/api/v1/queue/events":
            self.stream()
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers: dict[str, list[str]] = {}
            for name, value in self.headers.items():
                headers.setdefault(name.lower(), []).append(value)
            said = {"path": self.path, "headers": headers, "bytes": len(body)}
            self.answer("application/json", orjson.dumps(said))

    def do_POST(self) -> None:
        self.do_GET()

    def stream(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(b"data: first\n\n")
        if self.server.go_on.wait(30):
            self.wfile.write(b"data: second\n\n")
        self.close_connection = True

    def answer(self, content_type: str, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  (the library's name)
        """`asked` tells."""
