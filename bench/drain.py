"""How fast a backlog is worked off, beside Dramatiq alone with as many messages of the same work.

Both sides' workers are warm and stand still (SIGSTOP) while the backlog is brought to RabbitMQ; the time begins when
they may go on. Ours: accepted, published by the dispatcher, run in order, each outcome recorded in PostgreSQL.
"""

import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench import plain_dramatiq
from bench.place import LOGS, Place, wait_for
from bench.report import Report, rate, ratio
from bench.users import backlog, users, waiting
from scripts.servers.process import Process

PROCESSES, THREADS = 2, 8


@dataclass(frozen=True)
class Backlog:
    """So many requests of so many users, and the least that is expected beside Dramatiq alone."""

    requests: int
    users: int
    expected: float | None


BACKLOGS = {
    "drain-deep": Backlog(10_000, 100, 2.5),
    "drain-middle": Backlog(20_000, 1_000, None),
    "drain-wide": Backlog(5_000, 5_000, 0.2),
}


def run(here: Place, report: Report, name: str, quick: bool) -> None:
    """One backlog, rounds of both sides in turns, after one that only warms up."""
    asked = BACKLOGS[name]
    rounds = 1 if quick else 9  # each takes seconds: on a busy machine single ones scatter by a third
    dispatcher = here.manage("dispatcher", "dispatch")
    workers = here.manage("workers", "work", "--processes", str(PROCESSES), "--threads", str(THREADS))
    with PlainDramatiq(here) as plain:
        ours(here, workers, asked)
        plain.drain(1_000)
        results = [(ours(here, workers, asked), plain.drain(asked.requests)) for _ in range(rounds)]
    here.stop(workers, dispatcher)
    table = report.table(
        f"{name}: {asked.requests:,} demo.echo of {asked.users:,} users",
        "round", "ours, requests/s", "ours, seen from outside", "Dramatiq alone", "ratio",
    )  # fmt: skip
    for number, ((inside, outside), alone) in enumerate(results, 1):
        table.add_row(str(number), rate(inside), rate(outside), rate(alone), ratio(inside / alone))
    table.add_section()
    insides, outsides = [r[0][0] for r in results], [r[0][1] for r in results]
    alones = [r[1] for r in results]
    between = median(inside / alone for inside, alone in zip(insides, alones, strict=True))
    table.add_row("median", rate(median(insides)), rate(median(outsides)), rate(median(alones)), ratio(between))
    report.show(table)
    report.verdict(f"{name} beside Dramatiq alone", between, asked.expected)


def ours(here: Place, workers: Process, asked: Backlog) -> tuple[float, float]:
    """Requests a second: by the recorded times of the requests themselves, and as seen from outside."""
    of = users(here, f"drain{asked.users}", asked.users)
    here.empty()
    workers.pause()
    backlog(of, asked.requests)
    unpublished = "SELECT count(*) FROM queues_userqueue WHERE unpublished"
    wait_for(lambda: here.one(unpublished) == 0, "the backlog in RabbitMQ", every=0.05)
    here.sql.execute("VACUUM ANALYZE queues_userqueue, queues_request")
    began = time.perf_counter()
    workers.resume()
    wait_for(lambda: waiting(here) == 0, "an empty backlog", seconds=120, every=0.02)
    outside = time.perf_counter() - began
    row = here.sql.execute(
        "SELECT count(*), extract(epoch FROM max(finished_at) - min(started_at))::float8 FROM queues_request"
        " WHERE status = 'succeeded'"
    ).fetchone()
    assert row is not None
    if row[0] != asked.requests:
        raise RuntimeError(f"{row[0]} of {asked.requests} requests succeeded")
    return asked.requests / row[1], asked.requests / outside


class PlainDramatiq:
    """Dramatiq's own command line with bench/plain_dramatiq.py, as many processes and threads."""

    def __init__(self, here: Place) -> None:
        self.here = here
        self.counts: Path = LOGS / "plain-counts"

    def __enter__(self) -> "PlainDramatiq":
        shutil.rmtree(self.counts, ignore_errors=True)
        self.counts.mkdir(parents=True)
        command = [sys.executable, "-m", "dramatiq", "bench.plain_dramatiq", "--skip-logging"]
        command += ["--processes", str(PROCESSES), "--threads", str(THREADS)]
        self.workers = self.here.start("plain-dramatiq", command, PLAIN_COUNTS=str(self.counts))
        return self

    def __exit__(self, *_: object) -> None:
        self.here.stop(self.workers)
        shutil.rmtree(self.counts, ignore_errors=True)

    def drain(self, messages: int) -> float:
        """Messages a second, from the first that began to the last that ended."""
        self.workers.pause()
        plain_dramatiq.start_over(self.counts)
        for n in range(messages):
            plain_dramatiq.echo.send({"n": n})
        self.workers.resume()
        wait_for(lambda: plain_dramatiq.counted(self.counts)[0] == messages, "all of Dramatiq's messages", 120, 0.02)
        _, first, last = plain_dramatiq.counted(self.counts)
        return messages / (last - first)
