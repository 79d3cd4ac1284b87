"""What an idle queue, a waiting request and a worker hold: in PostgreSQL, in RabbitMQ and in their own memory."""

from pathlib import Path
from typing import Any

from bench.loads.backlog import Backlog, made
from bench.peers.ours import peer
from bench.place import Place
from bench.report import Report
from bench.users import users
from scripts.servers.process import descendants

TABLES = "pg_total_relation_size('queues_userqueue') + pg_total_relation_size('queues_request')"


def run(here: Place, report: Report, name: str, quick: bool) -> None:
    """Each is the growth by many, divided by them. RabbitMQ's is the whole broker's: others must be quiet."""
    count = 500 if quick else 5_000
    ours = peer("ours")
    ours.start(here, 16)
    worker = ours.workers[0]
    weight = sum(_proportional(process.pid) for process in [worker, *descendants(worker.pid)])
    before = _size(here)
    users(here, "memory", count)
    idle = (_size(here) - before) / count
    ours.ids = users(here, "memory", count)
    ours.users = count
    ours.pause()
    before, broker = _size(here), _broker()
    ours.add(made(Backlog("", count, 1)))
    ours.brought()
    one, grown = (_size(here) - before) / count, (_broker() - broker) / count
    before = _size(here)
    ours.add(made(Backlog("", 100, 100)))
    ours.brought()
    more = (_size(here) - before) / 10_000
    ours.resume()
    ours.stop()
    table = report.table("memory: what each holds", "", "PostgreSQL", "RabbitMQ", "itself")
    table.add_row("an idle queue that never had a request", _kilobytes(idle), "-", "-")
    table.add_row("a queue with its first request waiting", _kilobytes(one), _kilobytes(grown), "-")
    table.add_row("each further request that waits", _kilobytes(more), "-", "-")
    table.add_row("a worker process with 8 threads, and its parent", "-", "-", _kilobytes(weight))
    report.raw["memory"] = {"idle": idle, "first": one, "broker": grown, "further": more, "worker": weight}
    report.show(table)


def _size(here: Place) -> int:
    found: Any = here.one(f"SELECT {TABLES}")
    return int(found)


def _proportional(pid: int) -> int:
    """Bytes of a process, with its part of what it shares."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0


def _broker() -> int:
    found = 0
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (entry / "comm").exists() and (entry / "comm").read_text() == "beam.smp\n":
            found += _proportional(int(entry.name))
    return found


def _kilobytes(size: float) -> str:
    return f"{size / 1024:,.1f} KB"
