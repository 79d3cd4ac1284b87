"""The whole way, from a submission over HTTP until its job has ended: closed loop, then open loop at growing rates.

Closed: 16 connections, the next submission when the last is accepted. Open: submissions are due at fixed moments,
whatever became of those before; what counts is from when one was due until its handler had ended.
"""

import time
from statistics import median
from typing import Any

from bench import cpu
from bench.load import CONNECTIONS, drive, drive_openly
from bench.loads.round_trip import percentiles
from bench.place import Place
from bench.report import Report, milliseconds, rate, ratio
from bench.stacks import Stack, stacks
from bench.trace import check

P99 = 0.5  # seconds that "sustained" allows
RATES = (20, 100, 300)
Result = dict[str, Any]


class Refused(RuntimeError):
    """Not all submissions were accepted."""


def run(here: Place, report: Report, name: str, quick: bool) -> None:
    """Passes over all stacks in rotated order, with few users; ours also with many, at fixed rates, and its CPU.

    Many are measured twice: the first request of a user has RabbitMQ make their queue.
    """
    few, many, passes = (32, 64, 1) if quick else (200, 5_000, 3)
    sides = stacks(here, report, here.peers)
    found: dict[str, list[Result]] = {side.name: [] for side in sides}
    for number in range(passes):
        for side in sides[number % len(sides) :] + sides[: number % len(sides)]:
            found[side.name] += _measured(report, side, few, quick)
    first, later = _measured(report, sides[0], many, quick, loops=2)
    found |= {f"this project, {many:,} users": [later], f"this project, {many:,} users, the first of each": [first]}
    report.raw["end-to-end"] = found
    _tell(report, few, found)
    best = [one["sustained"] for one in found[sides[0].name] if "sustained" in one]
    _at_rates(report, sides[0], few, median(best) if best else 0, quick)


def _measured(report: Report, side: Stack, users: int, quick: bool, loops: int = 1) -> list[Result]:
    """One stack: closed loops, one after the other, then what is sustained. What cannot be measured is noted."""
    found: list[Result] = [{} for _ in range(loops)]
    try:
        side.start(users)
        _closed(side, users, 200)  # warm
        for loop in found:
            loop.update(_closed(side, users, 400 if quick else max(4_000, users)))
        found[-1]["sustained"] = _sustained(side, users, found[-1]["rate"], quick)
    except (TimeoutError, RuntimeError, OSError) as wrong:
        report.note(f"end to end: {side.name}, {users:,} users: {wrong}")
    finally:
        side.stop()
    report.say(f"end to end: {side.name}, {users:,} users: done")
    return found


def _closed(side: Stack, users: int, count: int) -> Result:
    """Submissions over 16 connections; the rate until the last job's end, the checks, and the CPU by process."""
    users -= users % CONNECTIONS  # so that a user's submissions share a connection, and come in their order
    requests = [side.request(n % users, n // users) for n in range(count)]
    jobs = [{"user": n % users, "n": n // users} for n in range(count)]
    side.forget()
    database = str(side.here.one("SELECT current_database()"))
    stack = side.process.pid if side.process else 0
    before, began = cpu.spent(stack, database), time.monotonic()
    load = drive(side.port, requests, own=True)
    refused = set(load.refused)
    jobs = [job for place, job in enumerate(jobs) if place not in refused]
    if not jobs:
        raise RuntimeError(f"answered {dict(load.statuses)}")
    side.quiet(len(jobs), 120)
    spent = cpu.between(before, cpu.spent(stack, database))
    runs = side.trace.runs()
    seconds = max(run.ended for run in runs) - began
    result = {"rate": len(jobs) / seconds, "accepted": load.rate, "refused": len(refused), **vars(check(runs, jobs))}
    if side.peer is None:
        result["cpu"] = {name: 1000 * one / len(jobs) for name, one in spent.items()}
    return result


def _sustained(side: Stack, users: int, closed: float, quick: bool) -> float:
    """The most a second at which p99 stays below half a second; sought between nothing and above the closed loop."""
    low, high = 0.0, 1.3 * closed
    for _ in range(3 if quick else 6):
        middle = (low + high) / 2
        if _holds(side, users, middle, 1.5 if quick else 5):
            low = middle
        else:
            high = middle
    return low


def _holds(side: Stack, users: int, a_second: float, seconds: float) -> bool:
    try:
        waits = _open(side, users, a_second, seconds)
    except (Refused, TimeoutError):
        side.quiet(0, 120)
        return False
    return percentiles(waits)["p99"] < P99


def _open(side: Stack, users: int, a_second: float, seconds: float) -> list[float]:
    """Of each job: from when its submission was due until it had ended."""
    count = max(20, int(a_second * seconds))
    side.forget()
    requests = [side.request(n % users, n // users) for n in range(count)]
    load, due = drive_openly(side.port, requests, a_second)
    side.quiet(load.accepted, 60)
    if load.refused:
        raise Refused(f"at {a_second:,.0f} a second: answered {dict(load.statuses)}")
    ended = {(run.user, run.n): run.ended for run in side.trace.runs()}
    return [ended[n % users, n // users] - due[n] for n in range(count)]


def _tell(report: Report, users: int, found: dict[str, list[Result]]) -> None:
    table = report.table(
        f"end to end: {users:,} users unless it says otherwise, over HTTP until the job has ended",
        "", "closed loop, jobs/s", "range", "sustained with p99 < 500 ms", "range", "ours is",
        "refused", "overtook", "two at once", "run again", "lost",
    )  # fmt: skip
    ours = next(iter(found.values()))
    for name, rounds in found.items():
        good = [one for one in rounds if "rate" in one]
        if not good:
            table.add_row(name, *["-"] * 10)
            continue
        closed, sustained = [one["rate"] for one in good], [one["sustained"] for one in good if "sustained" in one]
        checks = [f"{sum(one[key] for one in good)}" for key in ("refused", "overtook", "at_once", "repeated", "lost")]
        beside = ""
        both = [(our.get("sustained"), their.get("sustained")) for our, their in zip(ours, rounds, strict=False)]
        ratios = [our / their for our, their in both if our and their]
        if rounds is not ours and ratios and "users" not in name:
            beside = ratio(median(ratios))
        most = (rate(median(sustained)), _range(sustained)) if sustained else ("-", "-")
        table.add_row(name, rate(median(closed)), _range(closed), *most, beside, *checks)
    report.show(table)
    values = {name: [one["sustained"] for one in rounds if "sustained" in one] for name, rounds in found.items()}
    report.chart("end to end, sustained requests/s", {name: some for name, some in values.items() if some})
    spent = [(name, one["cpu"]) for name, rounds in found.items() for one in rounds[-1:] if "cpu" in one]
    costs = report.table("end to end: CPU seconds per 1,000 requests, closed loop", "", *cpu.ORDER, "together")
    for name, cost in spent:
        costs.add_row(name, *(f"{cost[part]:.2f}" for part in cpu.ORDER), f"{sum(cost.values()):.2f}")
    report.show(costs)


def _range(values: list[float]) -> str:
    return f"{rate(min(values))} .. {rate(max(values))}"


def _at_rates(report: Report, ours: Stack, users: int, most: float, quick: bool) -> None:
    """How long a request takes where there is room: by its row, and as its submitter sees it."""
    table = report.table(
        "end to end: how long a request takes at so many a second",
        "", "accepted to finished, p50", "p99", "submission due to job's end, p50", "p99",
    )  # fmt: skip
    by_row = (
        "SELECT percentile_cont(%s) WITHIN GROUP (ORDER BY extract(epoch FROM finished_at - created_at)::float8)"
        " FROM queues_request"
    )
    told: Result = {}
    try:
        ours.start(users)
        _closed(ours, users, 400)
        for a_second in [*RATES, *([int(most / 2)] if most else [])]:
            waits = percentiles(_open(ours, users, a_second, 2 if quick else 20))
            rows = [float(str(ours.here.one(by_row, share))) for share in (0.5, 0.99)]
            told[str(a_second)] = {**waits, "rows": rows}
            half = " (half of the most)" if a_second not in RATES else ""
            table.add_row(f"{a_second:,}{half}", *map(milliseconds, rows), *map(milliseconds, waits.values()))
    except (TimeoutError, RuntimeError, OSError) as wrong:
        report.note(f"end to end, at fixed rates: {wrong}")
    finally:
        ours.stop()
    report.raw["at-rates"] = told
    report.show(table)
