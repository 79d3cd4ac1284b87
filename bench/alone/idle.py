"""What users cost who do nothing: a thousand of them beside a million, everything else alike."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench.alone.latency import Waits, measure
from bench.place import Place, wait_for
from bench.report import Report, milliseconds
from bench.users import backlog, users, waiting
from queues.lifecycle import outbox
from queues.lifecycle.lease import WORKERS
from queues.lifecycle.outbox import Shard

NAME = "bench-dispatcher"  # as PostgreSQL knows its connection
TICKS = os.sysconf("SC_CLK_TCK")

# What a dispatcher that has nothing to do asks again and again, and how often a minute.
QUESTIONS = {
    "unpublished": (lambda: outbox.unpublished(Shard(0, 1), 0, 500), 240),
    "wake": (lambda: outbox.wake(Shard(0, 1), 1000), 240),
    "enter_line": (lambda: outbox.enter_line(Shard(0, 1), 1000), 240),
    "dead_leases": (lambda: outbox.dead_leases(Shard(0, 1), WORKERS, 1000), 60),
    "stale_ready": (lambda: outbox.stale_ready(Shard(0, 1), 5, 1000), 60),
    "reap": (lambda: outbox.reap(Shard(0, 1), 600, 100), 60),
}


@dataclass
class Cost:
    """CPU seconds and seconds of questions per minute of doing nothing; and how long a request waits."""

    dispatcher: float
    backend: float | None
    queries: float
    waits: Waits


def run(here: Place, report: Report, name: str, quick: bool) -> None:
    """Measure with few idle users and with many."""
    few, many = (1_000, 100_000) if quick else (1_000, 1_000_000)
    costs = {count: _cost(here, count, quick) for count in (few, many)}
    table = report.table("idle: what users cost who do nothing", "", f"{few:,} users", f"{many:,} users")
    rows: dict[str, list[str]] = {
        "dispatcher, CPU s a minute": [f"{cost.dispatcher:.2f}" for cost in costs.values()],
        "its connection to PostgreSQL, CPU s a minute": [
            "-" if cost.backend is None else f"{cost.backend:.2f}" for cost in costs.values()
        ],
        "its questions to PostgreSQL, ms a minute": [f"{cost.queries * 1000:,.0f}" for cost in costs.values()],
        "accepted to finished, p50": [milliseconds(cost.waits.p50) for cost in costs.values()],
        "accepted to finished, p99": [milliseconds(cost.waits.p99) for cost in costs.values()],
    }
    for what, values in rows.items():
        table.add_row(what, *values)
    report.show(table)
    report.verdict("idle: questions with many beside few", costs[many].queries / costs[few].queries, None)
    here.sql.execute(
        "DELETE FROM queues_userqueue USING accounts_user u WHERE u.id = user_id AND username LIKE 'idle-%'"
    )
    here.sql.execute("DELETE FROM accounts_user WHERE username LIKE 'idle-%'")


def _cost(here: Place, count: int, quick: bool) -> Cost:
    _idle_users(here, count)
    dispatcher = here.manage("dispatcher", "dispatch", PGAPPNAME=NAME)
    workers = here.manage("workers", "work", "--processes", "2", "--threads", "8")
    someone = users(here, "busy", 16)
    backlog(someone, 1_600)
    wait_for(lambda: waiting(here) == 0, "warm workers")
    waits = measure(here, someone[0], 50 if quick else 200)
    seconds = 5 if quick else 20
    backend = here.one("SELECT pid FROM pg_stat_activity WHERE application_name = %s", NAME)
    before = _cpu(dispatcher.pid), _cpu(backend)
    time.sleep(seconds)
    spent = [
        None if then is None or now is None else (now - then) * 60 / seconds
        for then, now in zip(before, (_cpu(dispatcher.pid), _cpu(backend)), strict=True)
    ]
    queries = sum(_seconds(ask) * often for ask, often in QUESTIONS.values())
    here.stop(workers, dispatcher)
    return Cost(spent[0] or 0.0, spent[1], queries, waits)


def _idle_users(here: Place, count: int) -> None:
    """Users who had some work done once, and have none now: `count` of them in all."""
    here.sql.execute(
        "INSERT INTO accounts_user (id, username, password, email, is_superuser, is_staff, is_active, created_at)"
        " SELECT gen_random_uuid(), 'idle-' || n, '', '', false, false, true, now()"
        " FROM generate_series((SELECT count(*) FROM accounts_user WHERE username LIKE 'idle-%%'), %s - 1) n",
        [count],
    )
    here.sql.execute(
        "INSERT INTO queues_userqueue (user_id, last_seq, published_seq, done_seq)"
        " SELECT id, 3, 3, 3 FROM accounts_user u"
        " WHERE username LIKE 'idle-%' AND NOT EXISTS (SELECT FROM queues_userqueue q WHERE q.user_id = u.id)"
    )
    here.sql.execute("VACUUM ANALYZE accounts_user, queues_userqueue")


def _seconds(ask: Callable[[], object]) -> float:
    """The median time of a question."""
    times = []
    for _ in range(20):
        began = time.perf_counter()
        ask()
        times.append(time.perf_counter() - began)
    return median(times)


def _cpu(pid: object) -> float | None:
    """The CPU seconds of a process so far; None where it runs on another machine."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return (int(fields[11]) + int(fields[12])) / TICKS
