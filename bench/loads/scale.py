"""What a request costs with a million users and ten million finished requests in the tables, beside empty tables.

And with 20,000 queues that all have work, beside 5,000. The full tables are another place's, with processes of its own:
the two take turns, for a machine that changes its pace would tell more of itself than of the tables.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from statistics import median

from bench.loads.backlog import BACKLOGS, QUICK, Backlog, drain, made
from bench.names import FILLED
from bench.peers.ours import Ours, peer
from bench.place import Place
from bench.report import Report, rate, ratio
from scripts.place import ROOT

MANY = Backlog("20,000 users, one job each", 20_000, 1)
MANY_QUICK = Backlog("1,000 users, one job each", 1_000, 1)


def run(here: Place, report: Report, name: str, quick: bool) -> None:
    """The same backlogs in empty tables and in full ones, in turns."""
    users, requests = FILLED[quick]
    asked = backlogs(quick)
    empty: dict[str, list[float]] = {one: [] for one in asked}
    full: dict[str, list[float]] = {one: [] for one in asked}
    with filled(quick) as (there, seconds):
        report.say(f"filled with {users:,} users and {requests:,} requests within {seconds:,.0f} s")
        ours = started(here, asked)
        for number in range(1 if quick else 3):
            for one, backlog in asked.items():
                for side in ("empty", "full")[:: -1 if number % 2 else 1]:
                    if side == "empty":
                        empty[one].append(measured(ours, backlog, one))
                    else:
                        full[one].append(float(answer(there, one)))
        ours.stop()
    table = report.table(
        f"scale: jobs/s in empty tables, and with {users:,} users and {requests:,} finished requests",
        "", "empty", "full", "a job costs",
    )  # fmt: skip
    for one, figures in empty.items():
        cost = median(mine / theirs for mine, theirs in zip(figures, full[one], strict=True))
        table.add_row(asked[one].about, rate(median(figures)), rate(median(full[one])), ratio(cost))
        report.verdict(f"scale: {one}, empty beside full: 1.2 x is allowed", 1.2 / cost, 1.0)
    report.raw["scale"] = {"empty": empty, "full": full}
    values: dict[str, list[float]] = {}
    for one in empty:
        values |= {f"{one}, empty": empty[one], f"{one}, full": full[one]}
    report.chart("scale, jobs/s", values)
    report.show(table)


def backlogs(quick: bool) -> dict[str, Backlog]:
    of_all = QUICK if quick else BACKLOGS
    return {one: of_all[one] for one in ("deep", "middle", "wide")} | {"20,000 queues": MANY_QUICK if quick else MANY}


def started(here: Place, asked: dict[str, Backlog], *, keep_others: bool = False) -> Ours:
    """Our processes, after one backlog that only warms up. `keep_others`: what is in the tables stays there."""
    ours = peer("ours")
    ours.keep_others = keep_others
    ours.start(here, max(one.users for one in asked.values()))
    measured(ours, asked["deep"], "deep")
    return ours


def measured(ours: Ours, backlog: Backlog, name: str) -> float:
    """Jobs a second."""
    jobs = made(backlog)
    seconds = drain(ours, jobs, name)
    ours.clear()
    return len(jobs) / seconds


@contextmanager
def filled(quick: bool) -> Iterator[tuple["subprocess.Popen[str]", float]]:
    """A process with full tables, which measures what it is asked for, and the seconds that filling them took."""
    command = [sys.executable, "-m", "bench.filled", *(["--quick"] if quick else [])]
    process = subprocess.Popen(  # in a session of its own: whoever stops this one waits until that has put all away
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, start_new_session=True
    )
    try:
        yield process, float(answer(process))
    finally:
        process.terminate()
        process.communicate()


def answer(process: "subprocess.Popen[str]", question: str = "") -> str:
    """What it says next, of what it is asked if that is anything. Raises RuntimeError when it has ended."""
    assert process.stdin is not None and process.stdout is not None  # noqa: PT018  (pipes)
    with suppress(BrokenPipeError):
        print(question, file=process.stdin, flush=True)
    said = process.stdout.readline()
    if not said.endswith("\n"):
        raise RuntimeError("the process with the full tables has ended")
    return str(json.loads(said))
