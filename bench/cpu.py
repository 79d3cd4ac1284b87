"""Where CPU time goes, by process: what Linux counted for each until now, and the difference of two such moments."""

import contextlib
import os
from pathlib import Path

from scripts.servers.process import descendants

TICKS = os.sysconf("SC_CLK_TCK")
SERVERS = {"postgres": "PostgreSQL", "beam.smp": "RabbitMQ", "redis-server": "Redis"}
SHARED = ("walwriter", "checkpointer", "background writer")  # PostgreSQL's processes that serve all databases
ORDER = ("API", "worker", "dispatcher", "PostgreSQL", "RabbitMQ", "Redis", "log pipe")


def spent(stack: int, database: str) -> dict[int, tuple[str, float]]:
    """Of each process: what it belongs to, and its CPU seconds so far. `stack` is the process of bench/stack.py.

    RabbitMQ and Redis are told as a whole; of PostgreSQL what serves this database, and what writes for all.
    """
    ours: dict[int, str] = {process.pid: _service(process.pid) for process in descendants(stack)} | {stack: "log pipe"}
    found: dict[int, tuple[str, float]] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            head, _, rest = (entry / "stat").read_text().rpartition(")")
            name = ours.get(int(entry.name)) or SERVERS.get(head.partition("(")[2])
            if name == "PostgreSQL" and not _serves(entry, database):
                continue
            fields = rest.split()
            if name:
                found[int(entry.name)] = name, (int(fields[11]) + int(fields[12])) / TICKS
    return found


def between(before: dict[int, tuple[str, float]], after: dict[int, tuple[str, float]]) -> dict[str, float]:
    """CPU seconds by what they were spent for. What a process that ended had spent is not seen."""
    total: dict[str, float] = dict.fromkeys(ORDER, 0.0)
    for pid, (name, seconds) in after.items():
        total[name] += seconds - before.get(pid, (name, 0.0))[1]
    return total


def _service(pid: int) -> str:
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return "API"
    if "manage.py dispatch" in command:
        return "dispatcher"
    return "worker" if "manage.py work" in command else "API"


def _serves(entry: Path, database: str) -> bool:
    title = (entry / "cmdline").read_bytes().decode(errors="replace")
    return database in title or any(name in title for name in SHARED)
