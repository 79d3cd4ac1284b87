"""What the demo shows while it runs, and whether the promises were kept: read from the API, not from the code."""

from datetime import datetime
from itertools import pairwise
from typing import Any

from rich.console import Console
from rich.table import Table

from scripts.run.client import ACCEPTED
from scripts.run.crowd import Demonstrator

FLOOD = "flo"
LONGEST_WAIT = 2.0  # seconds: one turn of somebody else, and time for a slow machine


def progress(users: list[Demonstrator], seconds: float) -> Table:
    """The queues as they are now."""
    table = Table(title=f"{seconds:.1f} s", title_justify="left")
    for column in ("user", "load", "state", "waiting", "finished a minute", "the oldest waits since"):
        table.add_column(column, justify="right" if column in ("waiting", "finished a minute") else "left")
    for user in users:
        queue = user.queue
        oldest = (queue.get("oldest_waiting_at") or "")[11:23]
        table.add_row(
            user.name, user.load, queue["state"], str(queue["depth"]), str(queue["finished_per_minute"]), oldest
        )
    return table


def line(users: list[Demonstrator], seconds: float) -> str:
    """The same where no terminal is."""
    return f"{seconds:5.1f} s  " + "   ".join(
        f"{u.name}: {u.queue['depth']} waiting, {u.queue['state']}" for u in users
    )


def give(console: Console, users: list[Demonstrator], seconds: float) -> int:
    """Prints who got what; 0 when every promise was kept."""
    table = Table(title="kept?", title_justify="left")
    for column in ("user", "load", "accepted", "finished", "in order", "never two at once", "took attempts"):
        table.add_column(column, justify="right" if column in ("accepted", "finished", "took attempts") else "left")
    wrong = []
    for user in users:
        faults = broken(user)
        wrong += [f"{user.name}: {fault}" for faults_of_kind in faults.values() for fault in faults_of_kind]
        done = [request for request in user.requests if request["status"] == "succeeded"]
        table.add_row(
            user.name,
            user.load,
            f"{user.accepted}",
            f"{len(done)}",
            "yes" if not faults["order"] else "NO",
            "yes" if not faults["overlap"] else "NO",
            f"{sum(request['attempt'] for request in user.requests)}",
        )
    console.print(table)
    waits, window = quiet_waits(users)
    total = sum(user.accepted for user in users)
    console.print(f"{total} requests in {seconds:.1f} s; the flood ran for {window:.1f} s.")
    if waits:
        middle = sorted(waits)[len(waits) // 2]
        console.print(
            f"The quiet user waited for others while it ran: {1000 * middle:.0f} ms in the middle, "
            f"{1000 * max(waits):.0f} ms at most ({len(waits)} requests)."
        )
        if max(waits) > LONGEST_WAIT:
            wrong.append(f"the quiet user waited for {max(waits):.1f} s, more than {LONGEST_WAIT} s")
    else:
        wrong.append("the quiet user submitted nothing while the flood ran: nothing was measured")
    for fault in wrong[:20]:
        console.print(f"WRONG  {fault}")
    console.print("Every promise was kept." if not wrong else f"{len(wrong)} things are wrong.")
    return 1 if wrong else 0


def broken(user: Demonstrator) -> dict[str, list[str]]:
    """What the user's requests, in the order of their sequence numbers, show to be wrong."""
    requests = user.requests
    faults: dict[str, list[str]] = {"count": [], "order": [], "overlap": []}
    others = {answer: count for answer, count in user.answers.items() if answer != ACCEPTED}
    if others:
        faults["count"].append(f"not all of {user.asked} were accepted, other answers: {others}")
    if len(requests) != user.accepted:
        faults["count"].append(f"{user.accepted} were accepted, {len(requests)} are listed")
    for request in requests:
        if request["status"] != "succeeded":
            faults["count"].append(f"request {request['sequence']} is {request['status']}: {request['error']}")
    if [request["sequence"] for request in requests] != list(range(1, len(requests) + 1)):
        faults["order"].append("the sequence numbers are not 1, 2, 3 ..")
    finished = [request for request in requests if request["started_at"] and request["finished_at"]]
    for before, after in pairwise(finished):
        if moment(after, "started_at") < moment(before, "started_at"):
            faults["order"].append(f"request {after['sequence']} started before {before['sequence']}")
        if moment(after, "started_at") < moment(before, "finished_at"):
            faults["overlap"].append(f"request {after['sequence']} started while {before['sequence']} ran")
    return faults


def quiet_waits(users: list[Demonstrator]) -> tuple[list[float], float]:
    """Seconds that others' requests could have run but did not, while the flood ran, and how long it ran."""
    flood = next(user for user in users if user.name == FLOOD).requests
    if not flood or not all(request["finished_at"] for request in flood):
        return [], 0.0
    begin = min(moment(request, "created_at") for request in flood)
    end = max(moment(request, "finished_at") for request in flood)
    waits = []
    for user in users:
        if user.name == FLOOD:
            continue
        free = 0.0
        for request in user.requests:
            if not request["started_at"] or not request["finished_at"]:
                break
            could = max(free, moment(request, "created_at"))
            if begin <= could <= end:
                waits.append(moment(request, "started_at") - could)
            free = moment(request, "finished_at")
    return waits, end - begin


def moment(request: dict[str, Any], name: str) -> float:
    return datetime.fromisoformat(request[name]).timestamp()
