"""A header counts by the name that it was sent under, where the server tells which that was."""

import os
import sys
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path

import pytest

from scripts.place import ROOT, free_port
from scripts.servers.process import launch
from tests.docker.compose import ours


@pytest.fixture
def events(tmp_path: Path) -> Iterator[int]:
    """The port of the streams' process, as it is composed."""
    port = free_port()
    here = {"0.0.0.0": "127.0.0.1", "8000": str(port)}  # noqa: S104
    command = [sys.executable, "-m", *(here.get(word, word) for word in ours()["events"]["command"])]
    with (tmp_path / "log").open("wb") as output:
        process = launch(command, environment=dict(os.environ), output=output, folder=ROOT)
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
def test_a_header_with_underscores_is_none_to_the_streams_process(
    events: int, until: Callable[..., None], forged: str
) -> None:
    until(lambda: answered_id(events, {"X-Request-ID": "real"}) == "real", "events answers")
    assert answered_id(events, {forged: "forged"}) not in ("forged", None)
    assert answered_id(events, {forged: "forged", "X-Request-ID": "real"}) == "real"
    assert answered_id(events, {"X-Request-ID": "real", forged: "forged"}) == "real"
