"""A small HTTP server beside a process that serves no other: GET /health/live, /health/ready and /metrics."""

import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import orjson
from prometheus_client import CONTENT_TYPE_LATEST

# The name of each check, and "ok" or what is wrong.
Checks = Callable[[], dict[str, str]]


class PortUnusable(Exception):
    """Nobody can listen there; the message says why."""


class Probes(ThreadingHTTPServer):
    """Answers 200 if all checks are "ok", 503 otherwise. Port 0 takes a free one: see `server_port`."""

    daemon_threads = True
    request_queue_size = 16

    def __init__(self, host: str, port: int, live: Checks, ready: Checks, metrics: Callable[[], bytes]) -> None:
        self.answers: dict[str, Callable[[], tuple[int, str, bytes]]] = {
            "/health/live": lambda: _told(live()),
            "/health/ready": lambda: _told(ready()),
            "/metrics": lambda: (HTTPStatus.OK, CONTENT_TYPE_LATEST, metrics()),
        }
        try:
            super().__init__((host, port), _Handler)
        except (OSError, OverflowError) as error:
            raise PortUnusable(f"{host}:{port} cannot be listened on: {error}.") from error

    def start(self) -> "Probes":
        """Answer from now on, in threads that end with the process."""
        threading.Thread(target=self.serve_forever, name="probes", daemon=True).start()
        return self

    def handle_error(self, request: object, client_address: object) -> None:
        """One who hangs up or sends nonsense is nothing to tell of."""


class _Handler(BaseHTTPRequestHandler):
    timeout = 5  # seconds for a slow client
    server: Probes

    def do_GET(self) -> None:
        answer = self.server.answers.get(self.path.partition("?")[0])
        if answer is None:
            status, content_type, body = HTTPStatus.NOT_FOUND.value, "text/plain", b"not found\n"
        else:
            try:
                status, content_type, body = answer()
            except Exception as error:
                status, content_type = HTTPStatus.SERVICE_UNAVAILABLE.value, "text/plain"
                body = f"{type(error).__name__}\n".encode()
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_GET  # noqa: N815  (http.server)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (http.server)
        """Probes come every few seconds; no log wants them."""


def _told(checks: dict[str, str]) -> tuple[int, str, bytes]:
    well = all(found == "ok" for found in checks.values())
    body = orjson.dumps({"status": "ok" if well else "down", "checks": checks})
    return (HTTPStatus.OK if well else HTTPStatus.SERVICE_UNAVAILABLE).value, "application/json", body
