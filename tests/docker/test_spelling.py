"""A header counts by the name that it was sent under."""

import json
import os
import socket
import sys
from collections.abc import Iterator
from http.client import HTTPConnection

import pytest

from accounts.models import Session
from scripts.place import ROOT, free_port
from scripts.servers.process import launch
from tests.accounts.people import PASSWORD, make_user
from tests.docker.compose import image_command
from tests.waiting import until


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of the API, as it is composed."""
    port = free_port()
    here = {"0.0.0.0": "127.0.0.1", "8000": str(port), "2": "1"}
    command = [sys.executable, "-m", *(here.get(word, word) for word in image_command())]
    with (tmp_path_factory.mktemp("api") / "log").open("wb") as output:
        process = launch(command, environment={**os.environ, "TRUSTED_PROXIES": "1"}, output=output, folder=ROOT)
    yield port
    process.kill()


def answered_id(port: int, headers: dict[str, str]) -> str | None:
    """The X-Request-ID of an answer; None: nobody answers."""
    connection = HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", "/health/live", headers=headers)
        return connection.getresponse().headers["X-Request-ID"]
    except OSError:
        return None
    finally:
        connection.close()


@pytest.mark.parametrize("forged", ["X_Request_ID", "X-Request_ID", "x_request-id"])
def test_a_header_with_underscores_is_none_to_the_api(api: int, forged: str) -> None:
    until(lambda: answered_id(api, {"X-Request-ID": "real"}) == "real", 90, "it answers")
    assert answered_id(api, {forged: "forged"}) not in ("forged", None)
    assert answered_id(api, {forged: "forged", "X-Request-ID": "real"}) == "real"
    assert answered_id(api, {"X-Request-ID": "real", forged: "forged"}) == "real"


def test_nobody_chooses_their_address_by_another_spelling(api: int, transactional_db: None) -> None:
    """A proxy overwrites X-Forwarded-For; what the client sent beside it as X_Forwarded_For is no address."""
    until(lambda: answered_id(api, {"X-Request-ID": "real"}) == "real", 90, "it answers")
    user = make_user()
    body = json.dumps({"username": user.username, "password": PASSWORD}).encode()
    head = (
        "POST /api/v1/auth/token HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n"
    )
    for forged in (
        "X_Forwarded_For: 198.51.100.66\r\nX-Forwarded-For: 203.0.113.7\r\n",
        "X-Forwarded-For: 203.0.113.7\r\nX_Forwarded_For: 198.51.100.66\r\n",
    ):
        with socket.create_connection(("127.0.0.1", api), timeout=30) as line:
            line.sendall(f"{head}{forged}\r\n".encode() + body)
            assert line.makefile("rb").readline().startswith(b"HTTP/1.1 200")
    assert set(Session.objects.filter(user=user).values_list("address", flat=True)) == {"203.0.113.7"}
