"""One process of the stack under test, and the ports and addresses that it is given."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit, urlunsplit

from scripts.place import free_port
from scripts.servers.process import Process, birth, descendants


@dataclass
class Member:
    """One process of the project. It is started again when it dies, `rest` seconds later."""

    name: str
    command: list[str]
    log: IO[bytes]
    variables: dict[str, str]
    process: Process | None = None
    rest: float = 0.2
    not_before: float = 0.0
    died: float = 0.0
    starts: int = 0
    children: dict[int, str] = field(default_factory=dict)  # pid and birth: those that run handlers

    def alive(self) -> bool:
        return self.process is not None and self.process.alive()


def distinct_ports(count: int) -> list[int]:
    ports: set[int] = set()
    while len(ports) < count:
        ports.add(free_port())
    return list(ports)


def through(url: str, port: int) -> str:
    """The same address on another port."""
    parts = urlsplit(url)
    login, _, _ = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=f"{login}@127.0.0.1:{port}"))


def children(pid: int) -> list[int]:
    """The processes that `pid` started; from the kernel's own list where it keeps one."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return [process.pid for process in descendants(pid)] if birth(pid) else []
