"""A body that is too large is refused so that the client sees the refusal, whoever else sends slowly."""

import http.client
import json
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

from accounts.models import Session
from tests.processing.crew import new_user
from tests.processing.streaming import Server, serving
from tests.waiting import until

TEN_MB = b" " * 10_000_000
PATH = "/api/v1/auth/register"


@pytest.fixture(scope="module")
def api(django_db_setup: None) -> Iterator[Server]:
    with serving() as server:
        until(server.answers, 90, "granian answers")
        yield server


@pytest.mark.parametrize("path", [PATH, "/api/v1/requests", "/api/v1/nowhere"])
def test_pythons_own_client_sees_why_ten_megabytes_are_refused(api: Server, path: str) -> None:
    status = {PATH: 413, "/api/v1/requests": 401, "/api/v1/nowhere": 404}[path]
    for _ in range(3):
        connection = http.client.HTTPConnection("127.0.0.1", api.port, timeout=30)
        connection.request("POST", path, TEN_MB, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        assert (answer.status, json.loads(answer.read())["status"]) == (status, status)
        connection.close()


def test_urllib_sees_why_ten_megabytes_are_refused(api: Server) -> None:
    asked = urllib.request.Request(f"http://127.0.0.1:{api.port}{PATH}", TEN_MB, {"Content-Type": "application/json"})
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(asked, timeout=30)  # noqa: S310
    assert refused.value.code == 413
    assert json.load(refused.value)["type"] == "/problems/body-too-large"


def test_a_batch_of_nearly_a_megabyte_is_read_to_its_end(api: Server, transactional_db: None) -> None:
    one = {"kind": "demo.echo", "payload": "x" * 60_000}
    body = json.dumps({"requests": [one] * 16}).encode()
    connection = http.client.HTTPConnection("127.0.0.1", api.port, timeout=30)
    token = Session.open(new_user()).access
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}
    connection.request("POST", "/api/v1/requests/batch", body, headers)
    answer = connection.getresponse()
    assert (answer.status, len(json.loads(answer.read())["requests"])) == (202, 16)
    connection.close()


@pytest.mark.parametrize(
    ("path", "form", "begun"),
    [
        (PATH, "application/json", "{"),
        ("/account/verify-email", "application/x-www-form-urlencoded", "email="),
        ("/account/verify-email", "multipart/form-data; boundary=b", "--b\r\nContent-Disposition: form-data; name=f"),
        ("/admin/login/", "application/x-www-form-urlencoded", "username="),
    ],
    ids=["json", "form", "upload", "admin"],
)
def test_who_sends_a_body_drop_by_drop_holds_up_nobody(api: Server, path: str, form: str, begun: str) -> None:
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {form}\r\n"
    head += f"Cookie: csrftoken={'a' * 32}\r\nContent-Length: 2000000\r\n\r\n{begun}"
    over = threading.Event()
    took: list[float] = []

    def drip() -> None:
        began = time.monotonic()
        with socket.create_connection(("127.0.0.1", api.port), timeout=30) as line:
            line.sendall(head.encode())
            assert b" 413 " in line.recv(100)
            took.append(time.monotonic() - began)
            over.wait(60)

    drips = [threading.Thread(target=drip) for _ in range(12)]
    for one in drips:
        one.start()
    assert api.answers(), "while they drip"
    until(lambda: len(took) == 12, 30, "all are answered: nobody's body is read on for long")
    assert api.answers(), "while they drip"
    over.set()
    for one in drips:
        one.join()
    connection = http.client.HTTPConnection("127.0.0.1", api.port, timeout=30)
    connection.request("POST", PATH, TEN_MB, {"Content-Type": "application/json"})
    assert connection.getresponse().status == 413, "as if nothing had been"
