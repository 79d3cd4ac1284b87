"""What the tests of ./run share."""

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from scripts.place import ROOT
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


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A working copy, in which the reader writes; it runs from the environment of this one."""
    folder = tmp_path / "copy"
    folder.mkdir()
    for name in ("run", "manage.py", "pyproject.toml", "requirements.txt"):
        shutil.copy(ROOT / name, folder / name)
    (folder / "bench").mkdir()
    shutil.copy(ROOT / "bench" / "requirements.txt", folder / "bench")  # the environment may have what it names
    leave_out = shutil.ignore_patterns("__pycache__", "node_modules")
    for name in ("accounts", "queues", "processing", "project", "scripts", "tests", "docs", "examples"):
        shutil.copytree(ROOT / name, folder / name, ignore=leave_out)
    (folder / ".venv").symlink_to(Path(sys.prefix).resolve())
    return folder
