"""What a request costs with a million users and ten million finished requests in the tables, beside empty tables.

And with 20,000 queues that all have work, beside 5,000. CPU is told as well: it does not hang on how busy a disk is.
"""

import time
from statistics import median
from typing import Any

from bench.alone.pages import fill
from bench.loads.backlog import BACKLOGS, QUICK, Backlog, drain, made
from bench.names import FILLED
from bench.peers.ours import Ours, peer
from bench.place import Place
from bench.report import Report, rate, ratio

MANY = Backlog("20,000 users, one job each", 20_000, 1)
MANY_QUICK = Backlog("1,000 users, one job each", 1_000, 1)
FINISH = (  # what `pages` leaves waiting, for its lists
    "UPDATE queues_userqueue SET state = 'idle', wake_at = NULL, lease_until = NULL, paused = false,"
    " published_seq = last_seq, done_seq = last_seq WHERE active OR last_seq > done_seq OR paused",
    "UPDATE queues_request SET status = 'succeeded', started_at = created_at, finished_at = created_at"
    " WHERE finished_at IS NULL",
    "VACUUM ANALYZE queues_userqueue, queues_request",
)
Figures = dict[str, list[float]]


def run(here: Place, report: Report, name: str, quick: bool) -> None:
    """The same backlogs in empty tables and in full ones, in the same processes' first minutes."""
    users, requests = FILLED[quick]
    asked = dict(QUICK if quick else BACKLOGS)
    asked = {one: asked[one] for one in ("deep", "middle", "wide")} | {"20,000 queues": MANY_QUICK if quick else MANY}
    rounds = 1 if quick else 3
    ours = peer("ours")
    empty = _measured(here, ours, asked, rounds)
    began = time.monotonic()
    fill(here, users, requests)
    for statement in FINISH:
        here.sql.execute(statement)
    report.say(f"filled with {users:,} users and {requests:,} requests within {time.monotonic() - began:,.0f} s")
    ours.keep_others = True
    full = _measured(here, ours, asked, rounds)
    table = report.table(
        f"scale: jobs/s in empty tables, and with {users:,} users and {requests:,} finished requests",
        "", "empty", "full", "a job costs",
    )  # fmt: skip
    for one, figures in empty.items():
        cost = median(figures) / median(full[one])
        table.add_row(asked[one].about, rate(median(figures)), rate(median(full[one])), ratio(cost))
        report.verdict(f"scale: {one}, empty beside full: 1.2 x is allowed", 1.2 / cost, 1.0)
    report.raw["scale"] = {"empty": empty, "full": full}
    values: dict[str, list[float]] = {}
    for one in empty:
        values |= {f"{one}, empty": empty[one], f"{one}, full": full[one]}
    report.chart("scale, jobs/s", values)
    report.show(table)


def _measured(here: Place, ours: Ours, asked: dict[str, Backlog], rounds: int) -> Figures:
    """Jobs a second of each backlog, round by round."""
    ours.start(here, max(one.users for one in asked.values()))
    found: dict[str, Any] = {name: [] for name in asked}
    try:
        drain(ours, made(asked["deep"]), "deep")  # the first one only warms up
        ours.clear()
        for _ in range(rounds):
            for name, backlog in asked.items():
                jobs = made(backlog)
                found[name].append(len(jobs) / drain(ours, jobs, name))
                ours.clear()
    finally:
        ours.stop()
    return found
