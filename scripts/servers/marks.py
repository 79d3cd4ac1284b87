"""Whose a place on a server is: its name, and the working copy that it was made for."""

import hashlib
import json
import socket
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from scripts.place import ROOT


@dataclass(frozen=True)
class Mark:
    """What is written beside a database and into a Redis number: `folder` is on `machine`, and may be missing here."""

    name: str
    folder: str
    machine: str

    @classmethod
    def of_this_copy(cls, name: str) -> "Mark":
        return cls(name, str(ROOT), machine())

    @classmethod
    def read(cls, text: str | None) -> "Mark | None":
        """What `text` says; None when it is no mark. One of an earlier release names no machine."""
        try:
            return cls(**json.loads(text or ""))
        except (ValueError, TypeError):
            name, _, folder = (text or "").partition(" ")
            return cls(name, folder, "") if folder else None

    def text(self) -> str:
        return json.dumps(asdict(self))

    def abandoned(self) -> bool:
        """Whether its folder was on this machine and is gone."""
        try:
            return self.machine == machine() and not Path(self.folder).exists()
        except OSError:  # we may not look there
            return False


@cache
def machine() -> str:
    """This machine: a container, and what runs under a root folder of its own, is another one than its host."""
    try:
        number = Path("/etc/machine-id").read_text().strip()
    except OSError:
        number = ""
    root = Path("/").stat()
    return hashlib.sha256(f"{number} {socket.gethostname()} {root.st_dev} {root.st_ino}".encode()).hexdigest()[:16]
