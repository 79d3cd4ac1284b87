"""`./run chaos --faults N --seed S`: real processes, real clients, one fault after the other, then the ledger."""

import argparse
import json
import pickle
import random
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from rich.console import Console

from scripts.chaos import journal, report, witness
from scripts.chaos.bystanders import by_fault, stays
from scripts.chaos.clients import Clients, Counts, ask_patiently
from scripts.chaos.evidence import ClientRecord, Evidence
from scripts.chaos.fault import STAY_SECONDS, STAYING_EVERY, Planned, Trouble, plan
from scripts.chaos.faults import FAULTS
from scripts.chaos.ledger import Ledger, judge
from scripts.chaos.probes import Probes
from scripts.chaos.stack import Stack
from scripts.chaos.stalls import recovery, stalls, standstills
from scripts.place import ROOT, SetupError
from scripts.servers.process import signals_interrupt

WARM_UP_SECONDS = 2.0
RESOLVE_SECONDS = 60.0


@dataclass
class Course:
    """How a run goes."""

    planned: list[Planned]
    seed: int
    seconds: float = 3600.0
    users: int = 24
    threads: int = 6
    rate: float = 150.0
    drain_seconds: float = 120.0  # at the end nothing may stand still for longer
    manage: Path = ROOT / "manage.py"
    sql: str = ""
    keep: bool | None = None  # logs and journals; None: when a promise was broken


def main(arguments: list[str]) -> int:
    """0 when every promise was kept, 1 when not."""
    asked = parse(arguments)
    signals_interrupt()
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
    try:
        planned = plan(asked.seed, asked.faults, tuple(asked.only.split(",")) if asked.only else (), asked.stay)
    except ValueError as wrong:
        raise SetupError(f"--only: {wrong}.") from None
    say(f"seed {asked.seed}: {len(planned)} faults")
    course = Course(planned, asked.seed, asked.seconds, asked.users, rate=asked.rate, keep=asked.keep or None)
    figures = run(course)
    if asked.json:
        Path(asked.json).write_text(json.dumps(figures, indent=1) + "\n")
    report.show(console, figures)
    return 0 if figures["kept"] else 1


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("./run chaos", description=__doc__)
    short = sum(not fault.stays for fault in FAULTS.values())
    parser.add_argument("--faults", type=int, default=short, help=f"how many; default {short}")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6), help="default: a new one")
    parser.add_argument("--seconds", type=float, default=3600, help="no new fault after so long; default 3600")
    parser.add_argument(
        "--only", default="", metavar="KIND,..", help=f"kinds, or their beginnings: {', '.join(FAULTS)}"
    )
    parser.add_argument(
        "--stay",
        type=float,
        metavar="SECONDS",
        help=f"how long those called stay.* do, after their grace; default: {STAY_SECONDS[0]:g} to {STAY_SECONDS[1]:g};"
        f" 0: none of them. Every {STAYING_EVERY}th fault is one, or with --only stay each",
    )
    parser.add_argument("--users", type=int, default=24, help="default 24")
    parser.add_argument("--rate", type=float, default=150, help="requests submitted a second; default 150")
    parser.add_argument("--json", metavar="FILE", help="the ledger for programs")
    parser.add_argument("--keep", action="store_true", help="keep the processes' logs and the handlers' journals")
    return parser.parse_args(arguments)


def run(course: Course) -> dict[str, Any]:
    """Start everything, make trouble, heal it, wait until all queues rest, and judge: the figures."""
    stack = Stack(course.manage, course.sql)
    keep = True
    try:
        began = time.monotonic()
        stack.start()
        say(f"ready after {time.monotonic() - began:.1f} s; logs: {stack.folder}")
        clients = Clients((stack.port, stack.other_port), course.users, course.threads, course.rate, course.seed)
        clients.start()
        probes = Probes(stack.other_port)
        probes.start()
        time.sleep(WARM_UP_SECONDS)
        began = time.monotonic()
        trouble = Trouble(stack, clients, say, tuple(user.id for user in probes.users))
        trouble.make(course.planned, began + course.seconds)
        troubled = time.monotonic() - began
        stack.heal()
        counts = clients.stop(RESOLVE_SECONDS)
        counts.add(probes.stop(RESOLVE_SECONDS))
        say(f"{len(trouble.struck)} faults in {troubled:.0f} s, {counts.accepted} accepted; waiting for the rest")
        for defect in (stack.defect, *clients.errors, *probes.errors):
            if defect is not None:
                raise SetupError(f"Chaos itself has a defect: {type(defect).__name__}: {defect}")
        drained = drain(stack, clients, course.drain_seconds)
        ledger, evidence = weigh(stack, clients, counts, trouble, probes)
        about = {
            "seed": course.seed,
            "faults struck": len(trouble.struck),
            "faults that failed": sum(bool(fault.failed) for fault in trouble.struck),
            "seconds": round(troubled, 1),
            "seconds to drain": drained,
        }
        stayed = by_fault(stays(evidence.faults, evidence.probes, evidence.seen.rows))
        figures = report.as_json(ledger, stalls(evidence), recovery(evidence), stayed, about)
        figures["standstills"] = standstills(evidence, 10)
        keep = not ledger.kept if course.keep is None else course.keep
        if keep:
            (stack.folder / "evidence.pickle").write_bytes(pickle.dumps(evidence))
        return figures
    finally:
        stack.close(keep=keep)
        if keep:
            say(f"logs and journals are kept in {stack.folder}")


def drain(stack: Stack, clients: Clients, seconds: float) -> float | None:
    """Wait until every queue rests; how long that took, None when nothing went on for `seconds` before it did."""
    began = moved = time.monotonic()
    done = 0
    while time.monotonic() - moved < seconds:
        ask_patiently(RESOLVE_SECONDS, clients.release_all)
        with stack.database() as database:
            waiting = [count(database, query) for query in (witness.NOT_IDLE, witness.SCHEDULED)]
            before, done = done, count(database, witness.DONE)
        if not any(waiting):
            return round(time.monotonic() - began, 1)
        if done > before:
            moved = time.monotonic()
        time.sleep(0.3)
    say(f"nothing went on for {seconds:g} s; {waiting[0]} queues are not idle, {waiting[1]} requests still scheduled")
    return None


def count(database: psycopg.Connection, query: str) -> int:
    row = database.execute(query).fetchone()
    return int(row[0]) if row else 0


def weigh(stack: Stack, clients: Clients, counts: Counts, trouble: Trouble, probes: Probes) -> tuple[Ledger, Evidence]:
    """Collect the evidence and judge it."""
    users = [*clients.users, *probes.users]
    record = ClientRecord(
        {user.id: user.accepted for user in users},
        {user.id: user.final for user in users},
        {user.id: ask_patiently(RESOLVE_SECONDS, lambda user=user: clients.listed(user)) for user in users},
        counts,
        {trace for user in users for trace in user.doubtful},
    )
    with stack.database() as database:
        seen = witness.read(database, time.time() - time.monotonic())
    evidence = Evidence(record, seen, journal.read(stack.journal), stack.deaths, trouble.struck, probes.all)
    return judge(evidence), evidence


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
