"""Guides as they stand: a working copy in which a reader writes, the shell that they type into, a `./run up`."""

import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from scripts.place import SetupError
from scripts.servers import packages

BLOCK = re.compile(r"(?s)^```(\w*)\n(.*?)^```$", re.MULTILINE)


def blocks_of(guide: Path) -> list[tuple[str, str]]:
    """Each block with its language, from the top to the bottom."""
    return BLOCK.findall(guide.read_text())


def curl() -> None:
    """It is there, or apt-get brings it; elsewhere a test that needs it is skipped."""
    try:
        packages.programs({"curl": "curl"})
    except SetupError as missing:
        pytest.skip(str(missing))


@contextmanager
def up(command: str, copy: Path, environment: dict[str, str], log: Path) -> Iterator[None]:
    """A guide's `./run up`, once it is ready, until the block ends."""
    with log.open("w") as output:
        program = subprocess.Popen(
            ["bash", "-c", f"exec env {command}"], cwd=copy, env=environment, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        deadline = time.monotonic() + 150
        while "\nready" not in log.read_text():
            assert program.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        yield
    finally:
        program.send_signal(signal.SIGINT)
        try:
            program.wait(60)
        except subprocess.TimeoutExpired:
            program.kill()
            program.wait()


def shell(copy: Path, commands: str, environment: dict[str, str]) -> str:
    """What the commands print. Fails the test with all they said, where one of them fails."""
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands],
        cwd=copy, env=environment, capture_output=True, text=True, check=False, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, f"{commands}\n{done.stdout}\n{done.stderr}"
    return done.stdout
