"""One service for the tests of a module: its API over HTTP, and where a test asks for it a dispatcher and workers."""

import contextlib
import hashlib
import itertools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from accounts.models import User
from scripts.place import ROOT, free_port
from tests.processing.crew import Crew
from tests.processing.streaming import Server, serving
from tests.waiting import until

PASSWORD = "a long and unusual one"
_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def page_port() -> int:
    """Of pages whose scripts may call the service."""
    return free_port()


@pytest.fixture(scope="module")
def server(page_port: int, django_db_setup: None) -> Iterator[Server]:
    with serving(CORS_ORIGINS=f"http://127.0.0.1:{page_port}") as server:
        until(server.answers, 90, "the API answers")
        yield server


@pytest.fixture
def url(server: Server, transactional_db: None) -> str:
    return f"http://127.0.0.1:{server.port}"


@pytest.fixture
def user(transactional_db: None) -> User:
    return User.objects.create_user(f"client-{next(_numbers)}", password=PASSWORD)


@pytest.fixture
def crew(watch: object) -> Iterator[None]:
    with Crew(workers=2):
        yield


@pytest.fixture(scope="session")
def typescript(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """clients/typescript, built from its sources with what its lock file pins. Without Node its tests are skipped."""
    if not shutil.which("node") or not shutil.which("npm"):
        pytest.skip("clients/typescript is not tried: node and npm are not on the PATH. Install Node 18 or newer.")
    version = run_in(ROOT, "node", "--version")
    if int(version.removeprefix("v").split(".")[0]) < 18:
        pytest.skip(f"clients/typescript is not tried: it needs Node 18 or newer, and node is {version}.")
    sources, built = ROOT / "clients" / "typescript", tmp_path_factory.mktemp("client") / "typescript"
    shutil.copytree(sources, built, ignore=shutil.ignore_patterns("node_modules", "dist", "build"))
    (built / "node_modules").symlink_to(packages_of(sources))
    run_in(built, "npm", "run", "build")
    return built


def packages_of(sources: Path) -> Path:
    """What the lock file pins, installed once for each lock file: whole, or not at all."""
    lock = (sources / "package-lock.json").read_bytes()
    kept = ROOT / ".local" / "node" / hashlib.sha256(lock).hexdigest()[:16]
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept.parent) as place:
            new = Path(place) / "new"
            new.mkdir()
            for name in ("package.json", "package-lock.json"):
                shutil.copy(sources / name, new)
            run_in(new, "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
            with contextlib.suppress(OSError):  # another process was faster
                new.rename(kept)
    return kept / "node_modules"


def run_in(place: Path, *command: str, **environment: str) -> str:
    """What the command printed. Fails the test, with all it said, if it did not succeed."""
    done = subprocess.run(
        command, cwd=place, env=os.environ | environment, capture_output=True, text=True, check=False, timeout=150
    )
    if done.returncode:
        pytest.fail(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}", pytrace=False)
    return done.stdout.strip()
