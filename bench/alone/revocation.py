"""What it costs to ask with each submission whether its session still lives: ours, a query of its own, not at all."""

import json

from accounts.models import Session, User
from bench.load import post
from bench.loads.accept import BODY, USERS, Side, ahead_of, listening
from bench.place import Place
from bench.report import Report, milliseconds, rate, ratio
from bench.users import users
from scripts.place import free_port
from scripts.run.application import services

WAYS = {
    "statement": "asked by the statement that accepts (as it ships)",
    "signed": "not asked: signature and clock alone",
    "query": "asked by a query of its own",
}


def run(here: Place, report: Report, name: str, quick: bool) -> None:
    """Rounds of all three in turns, after one that only warms up."""
    count, rounds = (1_000, 3) if quick else (3_000, 9)
    sides = {way: _side(here, way) for way in WAYS}
    for side in sides.values():
        side.load(count // 2)
    for _ in range(rounds):
        for side in sides.values():
            side.rounds.append(side.load(count))
    here.stop(*(process for side in sides.values() for process in side.processes))
    table = report.table(
        f"revocation: {count:,} submissions a round over 16 connections, medians of {rounds} rounds",
        "whether the session lives is", "requests/s", "p50", "p99", "beside not asking",
    )  # fmt: skip
    for way, side in sides.items():
        p50, p99 = milliseconds(side.percentile(50)), milliseconds(side.percentile(99))
        table.add_row(WAYS[way], rate(side.rate), p50, p99, ratio(ahead_of(side, sides["signed"])))
    report.show(table)
    report.verdict(
        "revocation: asked in the statement beside not asked", ahead_of(sides["statement"], sides["signed"]), 0.9
    )
    report.verdict("revocation: a query of its own beside not asked", ahead_of(sides["query"], sides["signed"]), None)


def _side(here: Place, way: str) -> Side:
    """An API that asks in this way, with users and sessions of its own."""
    port = free_port()
    command = next(service.command for service in services(port) if service.name == "api")
    command = [*command[:-1], "bench.alone.revocation_app:application"]
    submitters = User.objects.filter(id__in=users(here, f"revocation-{way}", USERS))
    body = json.dumps(BODY).encode()
    requests = [post("/api/v1/requests", Session.open(user).access, body) for user in submitters]
    process = here.start(f"revocation-{way}", command, BENCH_REVOCATION=way)
    listening(port, "/api/v1/requests")
    return Side(WAYS[way], port, requests, [process])
