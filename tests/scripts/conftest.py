"""What the tests of ./run share."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from scripts.servers.borrowing import borrowed
from scripts.servers.servers import Servers


@pytest.fixture
def nothing_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if this were no test session: the environment names no server."""
    for name in ("DATABASE_URL", "RABBITMQ_URL", "REDIS_URL", "QUEUE_PREFIX", "SERVERS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def environment() -> Iterator[dict[str, str]]:
    """The environment of a ./run that has servers' places of its own, which this session lends and takes back."""
    with borrowed("run", keep_servers=False) as servers:
        yield environment_of(servers)


def environment_of(servers: Servers) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in ("SERVERS", "PORT", "SECRET_KEY")}
    return kept | servers.environment()


@pytest.fixture
def program(tmp_path: Path) -> Callable[[str], Path]:
    """Writes a shell script and says where."""

    def write(text: str) -> Path:
        path = tmp_path / f"program-{len(list(tmp_path.iterdir()))}"
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return path

    return write
