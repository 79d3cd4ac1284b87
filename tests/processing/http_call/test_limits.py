"""A call costs no more time, bytes and patience than it may."""

import base64
import socket
import socketserver
import threading
import time

import pytest

from processing.http_call.transport import CallFailed
from tests.processing.http_call.conftest import Place, Visit, call, request

DRIPS = {
    "a body without end": (b"HTTP/1.1 200 OK\r\n\r\n", b"x"),
    "headers without end": (b"HTTP/1.1 200 OK\r\n", b"X: y\r\n"),
    "chunks without end": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
    "answers that are not the last": (b"", b"HTTP/1.1 102 Processing\r\n\r\n"),
    "silence": (b"", b""),
}


@pytest.mark.parametrize("drip", DRIPS.values(), ids=DRIPS)
def test_a_server_that_drips_holds_no_call_longer_than_its_timeout(place: Place, drip: tuple[bytes, bytes]) -> None:
    place.page()(lambda visit: visit.drip(*drip))
    begun = time.monotonic()
    with pytest.raises(CallFailed, match="timeout of 1 s"):
        call(place.at(), timeout=1)
    assert 1 <= time.monotonic() - begun < 2.5


def test_redirects_share_one_timeout(place: Place) -> None:
    @place.page()
    def slow(visit: Visit) -> None:
        visit.server.closing.wait(0.4)
        visit.answer(302, Location="/")

    with pytest.raises(CallFailed, match="timeout of 1 s"):
        call(place.at(), timeout=1)
    assert len(place.visits) <= 3


def test_a_handshake_that_drips_ends_too() -> None:
    closing = threading.Event()

    class Drip(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.sendall(b"\x16\x03\x03\x40\x00")  # a record of 16 KiB begins
            while not closing.wait(0.05):
                self.request.sendall(b"\x02")

    class Server(socketserver.ThreadingTCPServer):
        def handle_error(self, *_: object) -> None:
            pass

    with Server(("127.0.0.1", 0), Drip) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        begun = time.monotonic()
        with pytest.raises(CallFailed):
            call(f"https://127.0.0.1:{server.server_address[1]}/", timeout=1)
        assert time.monotonic() - begun < 2.5
        closing.set()
        server.shutdown()


def test_a_name_server_that_is_silent_holds_no_call_either(monkeypatch: pytest.MonkeyPatch) -> None:
    end = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: end.wait(30) and [])
    with pytest.raises(CallFailed, match="timeout of 1 s"):
        call("http://slow.test/", timeout=1)
    end.set()


@pytest.mark.parametrize(
    "flood",
    [
        b"HTTP/1.1 200 OK\r\n" + b"X: " + b"y" * 200_000,
        b"HTTP/1.1 102 Processing\r\n\r\n" * 30_000,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + (b"1;" + b"e" * 1000 + b"\r\nx\r\n") * 2000,
    ],
    ids=["one header", "interim answers", "chunk extensions"],
)
def test_a_flood_around_the_body_is_not_read_to_its_end(place: Place, flood: bytes) -> None:
    place.page()(lambda visit: visit.wfile.write(flood))
    with pytest.raises(CallFailed, match=r"sent more than|could not be read"):
        call(place.at())


def test_a_body_that_unpacks_to_much_more_stays_packed(place: Place) -> None:
    place.page()(lambda visit: visit.answer(200, b"\x1f\x8b packed", Content_Encoding="gzip"))
    result = call(place.at())
    assert base64.b64decode(result["body"]) == b"\x1f\x8b packed"
    assert place.visits[0].headers["Accept-Encoding"] == "identity"


def test_a_call_ends_when_its_owner_gives_up(place: Place) -> None:
    asked = request()

    @place.page()
    def silent(visit: Visit) -> None:
        asked.ask_to_stop()
        visit.drip(b"HTTP/1.1 200 OK\r\n\r\n", b"x")

    begun = time.monotonic()
    assert call(place.at(), asked=asked, timeout=60) is None
    assert asked.heeded
    assert time.monotonic() - begun < 5
    assert place.left.wait(5), "the connection is closed"
