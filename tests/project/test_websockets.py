"""Nothing here speaks WebSocket, and who tries hears so."""

import socket

import pytest

from tests.processing.streaming import serving
from tests.waiting import until

HANDSHAKE = (
    "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


def test_a_websocket_is_refused_and_nothing_breaks(django_db_setup: None, capfd: pytest.CaptureFixture[str]) -> None:
    with serving() as server:
        until(server.answers, 90, "granian answers")
        for path in ("/", "/api/v1/queue/events", "/health/live"):
            with socket.create_connection(("127.0.0.1", server.port), timeout=30) as line:
                line.sendall(HANDSHAKE.format(path=path).encode())
                assert line.recv(100).startswith(b"HTTP/1.1 403 ")
    assert "Traceback" not in "".join(capfd.readouterr())
