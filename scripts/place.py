"""Where `./run` keeps what it makes, and the one way in which it says that something is wrong."""

import fcntl
import hashlib
import json
import os
import secrets
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).resolve().parent.parent
LOCAL = ROOT / ".local"
# Of this working copy alone: two clones on one machine must not run each other's work.
OWN_NAME = f"ordered_work_{hashlib.sha256(str(ROOT).encode()).hexdigest()[:8]}"


class SetupError(Exception):
    """A sentence for the person at the terminal: what is wrong and what to do."""


@contextmanager
def lock(name: str) -> Iterator[None]:
    """One process at a time in this working copy; the lock ends with its holder, however that dies."""
    LOCAL.mkdir(exist_ok=True)
    with (LOCAL / f"{name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


_held: list[IO[str]] = []


def hold(name: str) -> bool:
    """Takes `name` for as long as this process lives; False when another process of this working copy has it."""
    LOCAL.mkdir(exist_ok=True)
    file = (LOCAL / f"{name}.lock").open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return False
    _held.append(file)
    return True


def read_state(path: Path) -> dict[str, Any]:
    """What was kept at `path`, or nothing."""
    try:
        state = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}


def write_state(path: Path, state: dict[str, Any]) -> None:
    """Keeps `state` at `path`: all or nothing, readable by its owner alone (it holds passwords)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    draft.touch(mode=0o600)
    draft.write_text(json.dumps(state, indent=1))
    draft.replace(path)


def port_taken(port: int) -> str | None:
    """Why nothing of ours can listen on `port` of the loopback address; None when it can."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            probe.listen(1)
        except OSError as wrong:
            return os.strerror(wrong.errno or 0)
    return None


_reserved: list[socket.socket] = []


def free_port() -> int:
    """A port below the range that outgoing connections take theirs from, so that a server can come back to it.

    No other process of this kind is given it while this one lives. Raises SetupError.
    """
    for _ in range(1000):
        port = 15000 + secrets.randbelow(17000)
        if port_taken(port) is None and _reserve(port):
            return port
    raise SetupError("No free port between 15000 and 32000 on 127.0.0.1.")


def _reserve(port: int) -> bool:
    """Whether nobody had it: a server takes seconds to listen on what it was given. Linux alone has such names."""
    if not sys.platform.startswith("linux"):
        return True
    name = socket.socket(socket.AF_UNIX)
    try:
        name.bind(f"\0ordered-work/port/{port}")
    except OSError:
        name.close()
        return False
    _reserved.append(name)
    return True


def secret(name: str) -> str:
    """A random text of this working copy, kept where only its owner reads it."""
    path = LOCAL / name
    with lock("secrets"):
        if not path.exists():
            draft = path.with_name(f"{name}.new")
            draft.unlink(missing_ok=True)
            draft.touch(mode=0o600)
            draft.write_text(secrets.token_urlsafe(50))
            draft.replace(path)
        return path.read_text()
