"""docs/tutorial.md, as it stands: its files are written, its commands run, its `./run up` does its request."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from scripts.place import ROOT, SetupError, free_port
from scripts.servers import packages

BLOCK = re.compile(r"(?s)^```(\w*)\n(.*?)^```$", re.MULTILINE)
UP = "EXTRA_APPS=reports ./run up\n"


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
    for name in ("accounts", "queues", "processing", "project", "scripts", "tests", "docs"):
        shutil.copytree(ROOT / name, folder / name, ignore=leave_out)
    (folder / ".venv").symlink_to(Path(sys.prefix).resolve())
    return folder


@contextmanager
def up(copy: Path, environment: dict[str, str], log: Path) -> Iterator[None]:
    """The tutorial's `./run up`, once it is ready, until the block ends."""
    with log.open("w") as output:
        program = subprocess.Popen(
            ["bash", "-c", f"exec env {UP}"], cwd=copy, env=environment, stdout=output, stderr=subprocess.STDOUT
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


@pytest.mark.timeout(600)  # two sessions of tests and all processes start; beside others that takes its time
def test_the_tutorial_works_as_it_stands(copy: Path, environment: dict[str, str], tmp_path: Path) -> None:
    try:
        packages.programs({"curl": "curl"})
    except SetupError as missing:
        pytest.skip(str(missing))
    port = free_port()
    environment = environment | {"PORT": str(port)}
    environment.pop("PYTHONPATH", None)
    blocks: list[tuple[str, str]] = BLOCK.findall((ROOT / "docs" / "tutorial.md").read_text())
    tests = passed = 0
    finished = None
    following = iter(blocks)
    for language, text in following:
        if language == "python":
            path = copy / text.splitlines()[0].removeprefix("# ")
            assert not path.exists(), "each file is written once"
            path.write_text(text)
            tests += len(re.findall(r"^def test_", text, re.MULTILINE))
        elif text == UP:
            with up(copy, environment, tmp_path / "up.log"):
                _, request = next(following)
                assert "http://127.0.0.1:8000/" in request
                told = shell(copy, request.replace("127.0.0.1:8000", f"127.0.0.1:{port}"), environment)
            finished = json.loads(told[told.rindex('{"id"') :])
            assert finished["status"] == "succeeded", told
            assert finished["result"] == {"lines": ["Orders of May", "page 1", "page 2", "page 3"]}, told
        else:
            assert language == "bash"
            said = shell(copy, text, environment)
            passed += sum(map(int, re.findall(r"(\d+) passed", said)))
    assert finished, "its `./run up` was tried"
    assert passed == tests > 0, "each test of the tutorial ran"
    assert not os.path.lexists(copy / ".local" / "environments"), "it ran from the environment that was there"
