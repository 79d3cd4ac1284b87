"""nginx, as shipped, keeps from the API what must not reach it."""

import contextlib
import json
import socket
import ssl
import time
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPResponse
from typing import Any

import pytest

from tests.docker.conftest import StartEdge
from tests.docker.edge import HOST, Edge
from tests.docker.upstreams import StandIn
from tests.waiting import until

FORGED = {
    "X-Forwarded-For": "203.0.113.9",
    "X-Forwarded-Proto": "http",
    "X-Forwarded-Host": "evil.example",
    "X-Forwarded-Port": "1",
    "X-Real-IP": "203.0.113.9",
    "Forwarded": "for=203.0.113.9",
}


def problem(answer: HTTPResponse) -> dict[str, Any]:
    assert answer.headers["Content-Type"] == "application/problem+json"
    body: dict[str, Any] = json.loads(answer.read())
    assert body["status"] == answer.status
    assert body["request_id"] == answer.headers["X-Request-ID"]
    return body


def test_what_a_client_says_about_proxies_never_reaches_the_api(edge: Edge) -> None:
    seen = json.loads(edge.ask("GET", "/api/v1/queue?a=%2F", headers=FORGED).read())
    headers = seen["headers"]
    assert headers["x-forwarded-for"] == ["127.0.0.1"]
    assert headers["x-forwarded-proto"] == ["https"]
    assert headers["host"] == [f"{HOST}:{edge.port}"]
    assert not headers.keys() & {"x-forwarded-host", "x-forwarded-port", "x-real-ip", "forwarded"}
    assert seen["path"] == "/api/v1/queue?a=%2F"


@pytest.mark.parametrize("sent", ["mine-1", "not allowed", None])
def test_a_request_has_one_id_in_all_logs(edge: Edge, sent: str | None) -> None:
    seen = json.loads(edge.ask("GET", "/api/v1/queue", headers={"X-Request-ID": sent} if sent else {}).read())
    [passed_on] = seen["headers"]["x-request-id"]
    assert (passed_on == sent) == (sent == "mine-1")
    log = edge.folder / "access.log"
    until(lambda: log.read_text().endswith("}\n"), 60, "a line in the log")
    logged = json.loads(log.read_text().splitlines()[-1])
    assert (logged["request_id"], logged["path"], logged["status"]) == (passed_on, "/api/v1/queue", 200)


@pytest.mark.parametrize(("path", "limit"), [("/api/v1/requests", 64), ("/api/v1/requests/batch", 1024)])
def test_a_body_above_the_limit_is_refused_before_the_api(edge: Edge, stand_in: StandIn, path: str, limit: int) -> None:
    assert json.loads(edge.ask("POST", path, b"x" * limit * 1024).read())["bytes"] == limit * 1024
    refused = edge.ask("POST", path, b"x" * (limit * 1024 + 1))
    assert refused.status == 413
    assert problem(refused)["type"] == "/problems/body-too-large"
    assert stand_in.asked == [f"POST {path}"]


@pytest.fixture
def impatient(start_edge: StartEdge, stand_in: StandIn) -> Edge:
    behind = f"stand-in:{stand_in.server_port}"
    return start_edge(
        API=behind,
        EVENTS=behind,
        changes={"header_timeout 10s": "header_timeout 1s", "body_timeout 10s": "body_timeout 1s"},
    )


@contextlib.contextmanager
def raw(edge: Edge) -> Iterator[ssl.SSLSocket]:
    with (
        socket.create_connection(("127.0.0.1", edge.port)) as connection,
        edge.trust.wrap_socket(connection, server_hostname=HOST) as tls,
    ):
        tls.settimeout(30)
        yield tls


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Slow:",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n",
    ],
    ids=["header", "body"],
)
def test_a_slow_client_is_cut_off_and_costs_the_api_nothing(impatient: Edge, stand_in: StandIn, sent: bytes) -> None:
    with raw(impatient) as tls:
        tls.sendall(sent)
        with contextlib.suppress(ConnectionResetError, ssl.SSLEOFError):
            while tls.recv(4096):
                pass
    assert stand_in.asked == []


def cut_off(tls: ssl.SSLSocket, drop: bytes) -> bool:
    """Sends `drop`, 0.2 s after the last one; whether nobody takes it any more."""
    time.sleep(0.2)
    try:
        tls.sendall(drop)
    except OSError:  # a broken pipe, a reset, the end of TLS
        return True
    return False


def test_a_header_that_drips_is_cut_off_too(impatient: Edge, stand_in: StandIn) -> None:
    with raw(impatient) as tls:
        tls.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n")
        assert any(cut_off(tls, b"X-Drip: 1\r\n") for _ in range(150))
    assert stand_in.asked == []


def test_one_address_is_limited_with_a_word_on_when_to_come_back(start_edge: StartEdge, stand_in: StandIn) -> None:
    behind = f"stand-in:{stand_in.server_port}"
    edge = start_edge(API=behind, EVENTS=behind, REQUESTS_PER_SECOND="1", REQUESTS_BURST="3")
    answers = [edge.ask("GET", "/api/v1/queue") for _ in range(12)]
    refused = [answer for answer in answers if answer.status == 429]
    assert len(refused) >= 5
    assert {answer.headers["Retry-After"] for answer in refused} == {"1"}
    assert problem(refused[0])["type"] == "/problems/too-many-requests"
    assert len(stand_in.asked) == 12 - len(refused)


def test_metrics_are_nobodys_outside_and_the_admin_is_for_the_networks_named(
    start_edge: StartEdge, stand_in: StandIn, tmp_path: Any
) -> None:
    behind = f"stand-in:{stand_in.server_port}"
    edge = start_edge(API=behind, EVENTS=behind, ADMIN_FROM="192.0.2.0/24")
    for path in (
        "/metrics",
        "//metrics",
        "/%6detrics",
        "/admin",
        "/admin/",
        "/admin/queues/userqueue/",
        "//admin/",
        "/./admin/",
        "/%61dmin/",
    ):
        refused = edge.ask("GET", path)
        assert (refused.status, problem(refused)["type"]) == (404, "/problems/not-found"), path
    assert stand_in.asked == []


def test_the_admin_is_open_to_the_network_named(edge: Edge, stand_in: StandIn) -> None:
    assert edge.ask("GET", "/admin/").status == 200  # as shipped: this machine
    sent_on = edge.ask("GET", "/admin")
    assert (sent_on.status, sent_on.headers["Location"]) == (301, "/admin/")  # on the port that the client asked
    assert stand_in.asked == ["GET /admin/"]


def test_clients_that_can_speak_http_2(edge: Edge) -> None:
    edge.trust.set_alpn_protocols(["h2", "http/1.1"])
    with raw(edge) as tls:
        assert tls.selected_alpn_protocol() == "h2"


def test_a_header_with_underscores_never_reaches_the_api(edge: Edge) -> None:
    forged = {"X_Forwarded_For": "203.0.113.9", "Idempotency_Key": "one", "X_Request_ID": "two"}
    headers = json.loads(edge.ask("GET", "/api/v1/queue", headers=forged).read())["headers"]
    assert headers["x-forwarded-for"] == ["127.0.0.1"]
    assert not any("_" in name for name in headers)


def test_a_stream_arrives_piece_by_piece(edge: Edge, stand_in: StandIn) -> None:
    stream = edge.ask("GET", "/api/v1/queue/events")
    assert stream.readline() == b"data: first\n"
    assert not stand_in.go_on.is_set()
    stand_in.go_on.set()
    assert b"data: second" in stream.read()


def test_static_files_come_from_nginx_itself(edge: Edge, stand_in: StandIn) -> None:
    (edge.folder / "static" / "page.css").write_text("p {}" * 1000)
    found = edge.ask("GET", "/static/page.css", headers={"Accept-Encoding": "gzip"})
    assert (found.status, found.headers["Content-Type"], found.headers["Content-Encoding"]) == (200, "text/css", "gzip")
    assert problem(edge.ask("GET", "/static/none.css"))["type"] == "/problems/not-found"
    assert stand_in.asked == []
    assert b"worker_processes" not in edge.ask("GET", "/static/../nginx.conf").read()


@pytest.mark.parametrize(("port", "shown"), [("443", ""), ("8443", ":8443")])
def test_plain_http_is_sent_to_https_on_the_port_that_clients_know(
    start_edge: StartEdge, stand_in: StandIn, port: str, shown: str
) -> None:
    behind = f"stand-in:{stand_in.server_port}"
    edge = start_edge(API=behind, EVENTS=behind, PUBLIC_HTTPS_PORT=port)
    connection = HTTPConnection("127.0.0.1", edge.http_port, timeout=30)
    connection.request("POST", "/api/v1/requests?a=b", b"{}", {"Host": f"{HOST}:8080"})
    answer = connection.getresponse()
    assert (answer.status, answer.headers["Location"]) == (308, f"https://{HOST}{shown}/api/v1/requests?a=b")
    assert stand_in.asked == []


def test_an_api_that_is_away_is_a_problem_with_retry_after(edge: Edge, stand_in: StandIn) -> None:
    stand_in.shutdown()
    stand_in.server_close()
    gone = edge.ask("GET", "/api/v1/queue")
    assert (gone.status, gone.headers["Retry-After"]) == (503, "1")
    assert problem(gone)["type"] == "/problems/unavailable"
