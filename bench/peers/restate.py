"""Restate: its own server, a log on the disk, a virtual object a user; see bench/node/restate.js."""

import shutil

from bench.peers.base import Peer
from bench.peers.node import package, script
from bench.place import OWN, Place, wait_for
from scripts.place import free_port, port_taken


def peer(name: str) -> Peer:
    package("@restatedev/restate-server-linux-x64")
    work, control = script("restate", "work"), script("restate", "control")
    # One deployment is served by one process: a second would be a new version of the service, not a second worker.
    return Peer("Restate, virtual objects", "per user", "Restate", work, control, prepare=server, processes=1)


def server(here: Place) -> dict[str, str]:
    """A server of our own with nothing in it; the one before ends."""
    before = here.servers.pop("restate", None)
    if before:
        here.stop(before[0])
    ingress, admin, service, node = free_port(), free_port(), free_port(), free_port()
    folder = OWN / "restate"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    variables = {
        "RESTATE_INGRESS__BIND_ADDRESS": f"127.0.0.1:{ingress}",
        "RESTATE_ADMIN__BIND_ADDRESS": f"127.0.0.1:{admin}",
        "RESTATE_BIND_ADDRESS": f"127.0.0.1:{node}",
        "RESTATE_ADVERTISED_ADDRESS": f"http://127.0.0.1:{node}",
        "DO_NOT_TRACK": "1",
    }
    binary = package("@restatedev/restate-server-linux-x64") / "bin" / "restate-server"
    process = here.start("restate-server", [str(binary), "--base-dir", str(folder)], **variables)
    here.servers["restate"] = process, ingress
    wait_for(lambda: port_taken(ingress) and port_taken(admin), "Restate's server")
    return {
        "BENCH_INGRESS": f"http://127.0.0.1:{ingress}",
        "BENCH_ADMIN": f"http://127.0.0.1:{admin}",
        "BENCH_SERVICE_PORT": str(service),
    }
