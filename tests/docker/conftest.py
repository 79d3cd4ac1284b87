"""nginx with what stands behind it, and the programs that the tests run."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from scripts.place import ROOT, SetupError
from scripts.servers import packages
from tests.docker.edge import Edge
from tests.docker.names import NameServer
from tests.docker.upstreams import StandIn

PROGRAMS = {  # and Debian's package of each
    "nginx": "nginx",
    "openssl": "openssl",
    "prometheus": "prometheus",
    "promtool": "prometheus",
    "prometheus-alertmanager": "prometheus-alertmanager",
    "prometheus-postgres-exporter": "prometheus-postgres-exporter",
}


@pytest.fixture(scope="session")
def programs() -> dict[str, str]:
    """Where each is. A machine that lacks one and cannot get it fails here: what to install."""
    try:
        return packages.programs(PROGRAMS)
    except SetupError as wrong:
        pytest.fail(str(wrong), pytrace=False)


@pytest.fixture(scope="session")
def secrets(programs: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What docker/make-secrets makes, from a copy of it."""
    script = tmp_path_factory.mktemp("docker") / "make-secrets"
    shutil.copy(ROOT / "docker" / "make-secrets", script)
    subprocess.run([script], check=True, stdout=subprocess.DEVNULL)
    return script.parent / "secrets"


@pytest.fixture
def names() -> Iterator[NameServer]:
    with NameServer() as names:
        yield names


StartEdge = Callable[..., Edge]


@pytest.fixture
def start_edge(tmp_path: Path, programs: dict[str, str], secrets: Path, names: NameServer) -> Iterator[StartEdge]:
    """Starts nginx; `changes` replace text of the shipped configuration, names are variables of its environment."""
    with ExitStack() as running:

        def start(*, changes: dict[str, str] | None = None, **given: str) -> Edge:
            found_by = {"NGINX_LOCAL_RESOLVERS": f"127.0.0.1:{names.port}"}
            return running.enter_context(
                Edge(programs["nginx"], tmp_path / "nginx", secrets, found_by | given, changes or {})
            )

        yield start


@pytest.fixture
def stand_in(names: NameServer) -> Iterator[StandIn]:
    names.addresses["stand-in"] = ["127.0.0.1"]
    with StandIn() as server:
        yield server


@pytest.fixture
def edge(start_edge: StartEdge, stand_in: StandIn) -> Edge:
    """nginx before the stand-in, as shipped."""
    behind = f"stand-in:{stand_in.server_port}"
    return start_edge(API=behind, EVENTS=behind)
