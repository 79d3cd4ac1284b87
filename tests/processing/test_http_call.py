"""`http.call` against servers that mean well and servers that don't. They are real, and listen on this machine."""

import base64
import socket
import socketserver
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import orjson
import pytest
import uuid_utils.compat as uuid
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from django.conf import settings
from django.utils import timezone
from pydantic import ValidationError

from processing import handlers
from processing.handlers import HandlerRequest, Reject
from processing.http_call import transport
from processing.http_call.ssrf import is_public, may_connect
from processing.http_call.transport import AddressRefused, CallFailed
from queues import kinds
from queues.models import Attempt
from tests.processing.crew import Hand, attempts_of, new_user, requests_of, statuses_of, submit

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


# Calls and answers


def test_the_result_is_what_the_server_answered(place: Place) -> None:
    @place.page("/users")
    def users(visit: Visit) -> None:
        visit.answer(201, "grüße".encode(), Content_Type="text/plain", X_Two="a", x_two="b")

    result = call(
        place.at("/users?a=b%20c#part"), "POST", headers={"X-Mine": "yes", "content-type": "text/x"}, body="hällo"
    )
    assert (result["status"], result["body"], result["body_encoding"], result["truncated"]) == (
        201, "grüße", "utf-8", False,
    )  # fmt: skip
    assert (result["headers"]["content-type"], result["headers"]["x-two"]) == ("text/plain", "a, b")
    (visit,) = place.visits
    assert (visit.command, visit.path, visit.content) == ("POST", "/users?a=b%20c", "hällo".encode())
    assert visit.headers["Host"] == f"127.0.0.1:{place.server_port}"
    assert (visit.headers["X-Mine"], visit.headers.get_all("Content-Type")) == ("yes", ["text/x"])


def test_an_object_is_sent_as_json(place: Place) -> None:
    place.page()(lambda visit: visit.answer(204))
    assert call(place.at(), "PUT", body={"a": [1, "ü"]})["status"] == 204
    assert place.visits[0].headers["Content-Type"] == "application/json"
    assert orjson.loads(place.visits[0].content) == {"a": [1, "ü"]}


def test_a_body_is_cut_at_64_kib_and_says_so(place: Place) -> None:
    sizes = {"/fits": 64 * 1024, "/long": 64 * 1024 + 1, "/huge": 64 * 1024 * 1024}
    for path, size in sizes.items():
        place.page(path)(lambda visit, size=size: visit.answer(200, b"x" * size))  # type: ignore[misc]
    results = {path: call(place.at(path)) for path in sizes}
    assert {path: (len(r["body"]), r["truncated"]) for path, r in results.items()} == {
        "/fits": (65536, False),
        "/long": (65536, True),
        "/huge": (65536, True),
    }


def test_a_character_that_the_cut_divides_is_left_out(place: Place) -> None:
    place.page()(lambda visit: visit.answer(200, b"x" + "ü".encode() * 40_000))
    result = call(place.at())
    assert (result["body"], result["truncated"]) == ("x" + "ü" * 32_767, True)


@pytest.mark.parametrize("body", [b"\xff\xfe", b"a\0b", "ü".encode()[:1]])
def test_a_body_that_is_no_text_comes_as_base64(place: Place, body: bytes) -> None:
    place.page()(lambda visit: visit.answer(200, body))
    result = call(place.at())
    assert (base64.b64decode(result["body"]), result["body_encoding"]) == (body, "base64")


def test_a_head_has_headers_only(place: Place) -> None:
    @place.page()
    def page(visit: Visit) -> None:
        visit.send_response(200)
        visit.send_header("Content-Length", "1000")
        visit.end_headers()

    assert (call(place.at(), "HEAD")["headers"]["content-length"], call(place.at(), "HEAD")["body"]) == ("1000", "")


def test_each_attempt_carries_the_same_idempotency_key_unless_the_caller_chose_one(place: Place) -> None:
    place.page()(lambda visit: visit.answer(200))
    asked = request()
    for _ in range(2):
        call(place.at(), "POST", asked)
    call(place.at(), "POST", headers={"idempotency-key": "mine"})
    keys = [visit.headers.get_all("Idempotency-Key") for visit in place.visits]
    assert keys == [[str(asked.id)], [str(asked.id)], ["mine"]]


def test_proxies_of_the_environment_are_not_asked(
    place: Place, elsewhere: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, elsewhere.at())
    place.page()(lambda visit: visit.answer(200))
    assert call(place.at())["status"] == 200
    assert elsewhere.visits == []


# Failures


def test_a_server_that_fails_is_tried_again(place: Place, hand: Hand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kinds.Kind, "delay", lambda *_: 0)
    place.page()(lambda visit: visit.answer(503 if len(place.visits) < 3 else 200, b"at last"))
    user = new_user()
    submit(user, {"method": "POST", "url": place.at()}, kind="http.call")
    hand.settle()
    (done,) = requests_of(user)
    assert (done.status, done.attempt, done.result["body"]) == ("succeeded", 3, "at last")
    (first, _) = Attempt.objects.filter(request=done, outcome="failed").order_by("number")
    assert first.error["message"] == "The server answered 503 Service Unavailable."


def test_a_call_that_the_server_refuses_gets_no_other_attempt(place: Place, hand: Hand) -> None:
    place.page()(lambda visit: visit.answer(422))
    user = new_user()
    submit(user, {"method": "GET", "url": place.at()}, kind="http.call")
    hand.settle()
    assert statuses_of(user) == ["failed"]
    assert len(place.visits) == 1
    assert "422" in requests_of(user)[0].error["message"]


def test_no_connection_is_a_failed_attempt(names: dict[str, list[list[str]]]) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        with pytest.raises(CallFailed, match="No connection"):
            call(f"http://127.0.0.1:{bound.getsockname()[1]}/")
    names["gone.test"] = [[]]
    with pytest.raises(CallFailed):
        call("http://gone.invalid/")


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\na\0: b\r\n\r\n",
    ],
)
def test_an_answer_that_is_none_is_a_failed_attempt(place: Place, answer: bytes) -> None:
    place.page()(lambda visit: visit.wfile.write(answer))
    with pytest.raises(CallFailed):
        call(place.at())


def test_another_address_of_the_name_is_tried(place: Place, names: dict[str, list[list[str]]], allow: Any) -> None:
    allow("127.0.0.0/8")
    place.page()(lambda visit: visit.answer(200))
    names["two.test"] = [["127.0.0.9", "127.0.0.1"]]
    assert call(place.at(host="two.test"))["status"] == 200


# Addresses


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.8.8.8", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1",
        "0.0.0.0", "0.1.2.3", "224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255", "192.0.0.192",  # noqa: S104
        "192.0.2.1", "198.18.0.1", "198.51.100.1", "203.0.113.1", "192.88.99.1", "168.63.129.16",
        "::", "::1", "fe80::1", "fe80::1%1", "fc00::1", "fd00:ec2::254", "fec0::1", "ff02::1", "ff0e::1",
        "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:a9fe:a9fe", "::127.0.0.1", "::ffff:0:127.0.0.1",
        "64:ff9b::127.0.0.1", "64:ff9b::a00:1", "64:ff9b:1::8.8.8.8", "2002:7f00:1::", "2002:a00:1::1",
        "2001:0:7f00:1::", "2001:db8::1", "3fff::1", "100::1", "5f00::1",
    ],
)  # fmt: skip
def test_an_address_that_is_not_public_is_refused(address: str, allow: Any) -> None:
    allow("")
    assert not is_public(ip_address(address))
    assert not may_connect("name.test", address)


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8"])
def test_a_public_address_is_not_refused(address: str, allow: Any) -> None:
    allow("")
    assert may_connect("name.test", address)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "localhost", "LOCALHOST", "2130706433", "0177.0.0.1", "017700000001", "0x7f000001", "0x7f.1",
        "127.1", "0", "0.0.0.0", "[::1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::127.0.0.1]",  # noqa: S104
        "127。0。0。1", "①②⑦.⓪.⓪.①", "%31%32%37.0.0.1",
    ],
)  # fmt: skip
def test_no_way_to_write_this_machine_leads_to_it(place: Place, allow: Any, host: str) -> None:
    allow("")
    place.page()(lambda visit: visit.answer(200, b"secret"))
    with pytest.raises(AddressRefused, match="not public"):
        call(place.at(host=host))
    assert place.visits == []


def test_a_refused_call_gets_no_other_attempt_and_tells_no_address(place: Place, hand: Hand, allow: Any) -> None:
    allow("")
    user = new_user()
    submit(user, {"method": "GET", "url": place.at(host="localhost")}, kind="http.call")
    hand.settle()
    (refused,) = requests_of(user)
    assert (refused.status, refused.attempt) == ("failed", 1)
    assert attempts_of(refused) == [(1, "rejected")]
    assert refused.error["message"] == (
        "localhost leads to an address that is not public, which http.call does not connect to. An operator can allow "
        "it: HTTP_CALL_ALLOW."
    )


def test_what_was_checked_is_what_is_connected_to(
    place: Place, names: dict[str, list[list[str]]], monkeypatch: pytest.MonkeyPatch, allow: Any
) -> None:
    """Rebinding: public when it is looked at, this machine when it is asked for once more."""
    allow("")
    tried = []

    def connect(_: object, address: Any) -> None:
        tried.append(address[0])
        raise ConnectionRefusedError("not in a test")

    monkeypatch.setattr(socket.socket, "connect", connect)
    names["rebinding.test"] = [["93.184.215.14"], ["127.0.0.1"]]
    with pytest.raises(CallFailed):
        call(place.at(host="rebinding.test"))
    assert tried == ["93.184.215.14"]
    with pytest.raises(AddressRefused):
        call(place.at(host="rebinding.test"))
    assert tried == ["93.184.215.14"]


def test_of_several_addresses_only_permitted_ones_are_connected_to(
    names: dict[str, list[list[str]]], monkeypatch: pytest.MonkeyPatch, allow: Any
) -> None:
    allow("")
    tried = []

    def connect(_: object, address: Any) -> None:
        tried.append(address[0])
        raise ConnectionRefusedError("not in a test")

    monkeypatch.setattr(socket.socket, "connect", connect)
    names["both.test"] = [["10.0.0.1", "93.184.215.14", "::1"]]
    with pytest.raises(CallFailed):
        call("http://both.test/")
    assert tried == ["93.184.215.14"]


@pytest.mark.parametrize("named", ["127.0.0.0/8", "10.0.0.1, 127.0.0.1", "inside.test", "Inside.Test."])
def test_a_setting_opens_what_it_names(place: Place, names: dict[str, list[list[str]]], allow: Any, named: str) -> None:
    allow(named)
    names["inside.test"] = [["127.0.0.1"]]
    place.page()(lambda visit: visit.answer(200))
    assert call(place.at(host="inside.test"))["status"] == 200


def test_a_setting_opens_nothing_else(place: Place, names: dict[str, list[list[str]]], allow: Any) -> None:
    allow("inside.test,10.0.0.0/8")
    names |= {"not-inside.test": [["127.0.0.1"]], "sub.inside.test": [["127.0.0.1"]]}
    for host in ("not-inside.test", "sub.inside.test", "127.0.0.1"):
        with pytest.raises(AddressRefused):
            call(place.at(host=host))


# Redirects


def redirect(place: Place, path: str, status: int, to: str) -> None:
    place.page(path)(lambda visit: visit.answer(status, Location=to))


@pytest.mark.parametrize("host", ["localhost", "2130706433", "0x7f.1", "[::ffff:127.0.0.1]"])
def test_a_redirect_to_an_address_that_is_not_public_is_refused(
    place: Place, elsewhere: Place, names: dict[str, list[list[str]]], allow: Any, host: str
) -> None:
    allow("outside.test")  # stands for a public server
    names["outside.test"] = [["127.0.0.1"]]
    elsewhere.page()(lambda visit: visit.answer(200, b"secret"))
    redirect(place, "/", 302, elsewhere.at(host=host))
    with pytest.raises(AddressRefused):
        call(place.at(host="outside.test"))
    assert (len(place.visits), elsewhere.visits) == (1, [])


def test_a_name_is_checked_again_when_it_redirects_to_itself(
    place: Place, names: dict[str, list[list[str]]], allow: Any
) -> None:
    allow("127.0.0.1")
    names["turning.test"] = [["127.0.0.1"], ["10.0.0.1"]]
    redirect(place, "/", 307, "/again")
    with pytest.raises(AddressRefused):
        call(place.at(host="turning.test"))


@pytest.mark.parametrize(
    ("status", "method", "then"),
    [
        (301, "POST", "GET"), (302, "POST", "GET"), (303, "POST", "GET"), (303, "PUT", "GET"), (303, "HEAD", "HEAD"),
        (301, "PUT", "PUT"), (302, "DELETE", "DELETE"), (307, "POST", "POST"), (308, "PATCH", "PATCH"),
    ],
)  # fmt: skip
def test_redirects_change_the_method_as_browsers_do(place: Place, status: int, method: str, then: str) -> None:
    redirect(place, "/a/b", status, "../c?d")
    place.page("/c")(lambda visit: visit.answer(200))
    body = None if method == "HEAD" else "text"
    result = call(place.at("/a/b"), method, headers={"Authorization": "mine"}, body=body)
    last = place.visits[-1]
    assert (result["url"], last.command) == (place.at("/c?d"), then)
    assert last.content == (b"text" if then == method != "HEAD" else b"")
    assert ("Content-Type" in last.headers) == (then == method != "HEAD")
    assert last.headers["Authorization"] == "mine", "the same origin"


def test_credentials_are_not_forwarded_to_another_origin(place: Place, elsewhere: Place) -> None:
    redirect(place, "/", 307, elsewhere.at())
    elsewhere.page()(lambda visit: visit.answer(200))
    secret = {"Authorization": "s1", "Cookie": "s2", "X-Api-Key": "s3", "Idempotency-Key": "s4"}
    call(place.at(), "POST", headers=secret | {"Accept": "text/x"}, body="b")
    (there,) = elsewhere.visits
    assert not [value for value in there.headers.values() if value in secret.values()]
    assert (there.headers["Accept"], there.headers["Host"]) == ("text/x", f"127.0.0.1:{elsewhere.server_port}")


def test_five_redirects_are_followed_and_no_sixth(place: Place) -> None:
    for n in range(6):
        redirect(place, f"/{n}", 302, f"/{n + 1}")
    place.page("/6")(lambda visit: visit.answer(200))
    assert call(place.at("/1"))["status"] == 200
    with pytest.raises(Reject, match="more than 5 times"):
        call(place.at("/0"))


@pytest.mark.parametrize(
    "location",
    ["file:///etc/passwd", "ftp://127.0.0.1/", "http://a:b@127.0.0.1/", "gopher://127.0.0.1:6379/_x", "http://["],
)
def test_a_redirect_to_what_is_no_plain_http_url_is_refused(place: Place, location: str) -> None:
    redirect(place, "/", 302, location)
    with pytest.raises(Reject, match="302"):
        call(place.at())


# Time, size and patience

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


# TLS


@pytest.fixture
def authority(tmp_path: Path) -> Path:
    """A certificate for good.test that signs itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "good.test")])
    now = timezone.now()
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("good.test")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path / "good.pem"
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    return path


def test_a_certificate_must_be_trusted_and_name_the_host(
    place: Place, names: dict[str, list[list[str]]], authority: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked_for = []
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(authority)
    server.sni_callback = lambda _, name, __: asked_for.append(name)
    place.socket = server.wrap_socket(place.socket, server_side=True)
    place.page()(lambda visit: visit.answer(200, b"safe"))
    names |= {"good.test": [["127.0.0.1"]], "good.test.": [["127.0.0.1"]], "bad.test": [["127.0.0.1"]]}
    transport.tls.cache_clear()
    with pytest.raises(CallFailed, match="certificate verify failed"):
        call(place.at(host="good.test", scheme="https"))
    transport.tls.cache_clear()
    monkeypatch.setenv("SSL_CERT_FILE", str(authority))
    for host in ("good.test", "good.test."):
        assert call(place.at(host=host, scheme="https"))["body"] == "safe"
    with pytest.raises(CallFailed, match=r"bad\.test"):
        call(place.at(host="bad.test", scheme="https"))
    assert asked_for == ["good.test", "good.test", "good.test", "bad.test"]
    transport.tls.cache_clear()


# What may be asked for


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"method": "CONNECT"}, "method"),
        ({"method": "GET / HTTP/1.1\r\nX: y"}, "method"),
        ({"url": "ftp://example.com/"}, "url"),
        ({"url": "file:///etc/passwd"}, "url"),
        ({"url": "http://user:secret@example.com/"}, "url"),
        ({"url": "http://@example.com:80@127.0.0.1/"}, "url"),
        ({"url": "http://example.com/\r\nX: y"}, "url"),
        ({"url": "http://exa\tmple.com/"}, "url"),
        ({"url": "http://example.com/\0"}, "url"),
        ({"url": "http:///"}, "url"),
        ({"headers": {"Host": "inside"}}, "headers"),
        ({"headers": {"content-LENGTH": "1"}}, "headers"),
        ({"headers": {"Transfer-Encoding": "chunked"}}, "headers"),
        ({"headers": {"Connection": "X-Api-Key"}}, "headers"),
        ({"headers": {"Proxy-Authorization": "x"}}, "headers"),
        ({"headers": {"X": "1", "x": "2"}}, "headers"),
        ({"headers": {"X": "y\r\nZ: 1"}}, "headers"),
        ({"headers": {"X": "y\n"}}, "headers"),
        ({"headers": {"X": "y\0"}}, "headers"),
        ({"headers": {"X\n": "y"}}, "headers"),
        ({"headers": {"X:": "y"}}, "headers"),
        ({"headers": {"": "y"}}, "headers"),
        ({"headers": {"X": 1}}, "headers"),
        ({"body": "x"}, ""),
        ({"body": 1}, "body"),
        ({"timeout": 0.5}, "timeout"),
        ({"timeout": 61}, "timeout"),
        ({"timeout": "10"}, "timeout"),
        ({"verify": False}, "verify"),
    ],
    ids=str,
)
def test_a_payload_that_does_not_fit_names_its_field(change: dict[str, Any], field: str) -> None:
    schema = kinds.find("http.call").schema
    assert schema is not None
    with pytest.raises(ValidationError) as wrong:
        schema.model_validate_json(orjson.dumps({"method": "GET", "url": "http://example.com/"} | change))
    assert {str(error["loc"][0]) if error["loc"] else "" for error in wrong.value.errors()} == {field}


def test_a_header_of_the_transport_is_refused_with_a_sentence() -> None:
    schema = kinds.find("http.call").schema
    assert schema is not None
    with pytest.raises(ValidationError, match="Host is written by the service; leave it out"):
        schema.model_validate_json('{"method": "GET", "url": "http://example.com/", "headers": {"Host": "x"}}')
