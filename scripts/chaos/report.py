"""The ledger for people (tables) and for programs (JSON)."""

from statistics import median, quantiles
from typing import Any

from rich.console import Console
from rich.table import Table

from scripts.chaos.ledger import SHOWN, VIOLATIONS, Ledger
from scripts.chaos.stalls import Recovery, Stalls


def as_json(
    ledger: Ledger,
    stalls: dict[str, Stalls],
    recovery: Recovery,
    bystanders: dict[str, dict[str, float]],
    about: dict[str, Any],
) -> dict[str, Any]:
    """All figures; of each violation the first few descriptions."""
    return {
        **about,
        "kept": ledger.kept,
        "attempted": ledger.counts.attempted,
        "accepted": ledger.counts.accepted,
        "tries without an answer": ledger.counts.unanswered,
        "found accepted by their key": ledger.counts.found_accepted,
        "refused": ledger.counts.refused,
        "unresolved": ledger.counts.unresolved,
        "sent once, without an answer": ledger.counts.doubtful,
        "answers": dict(ledger.counts.answers.most_common()),
        "rows": sum(ledger.statuses.values()),
        "statuses": dict(ledger.statuses.most_common()),
        "attempts": ledger.attempts,
        "runs": ledger.runs,
        "runs killed": ledger.killed_runs,
        "duplicates executed": ledger.duplicates,
        "zombie runs": ledger.zombie_runs,
        "zombie overlaps": ledger.zombie_overlaps,
        "overlaps with a handler given up": ledger.given_up_overlaps,
        "violations": {name: len(found) for name, found in ledger.violations.items()},
        "findings": {name: found[:SHOWN] for name, found in ledger.violations.items() if found},
        "after a worker's death": spread(recovery.all),
        "after a worker's death, no other fault": spread(recovery.undisturbed),
        "finished before the death, yet repeated": spread(recovery.repeated_age),
        "bystanders": bystanders,
        "faults": {name: {k: round(v, 3) for k, v in vars(stall).items()} for name, stall in stalls.items()},
    }


def spread(seconds: list[float]) -> dict[str, float]:
    if not seconds:
        return {"count": 0}
    late = quantiles(seconds, n=20)[-1] if len(seconds) > 1 else seconds[0]
    figures = {"median": median(seconds), "95 %": late, "max": max(seconds)}
    return {"count": len(seconds), **{name: round(value, 3) for name, value in figures.items()}}


def show(console: Console, figures: dict[str, Any]) -> None:
    faults = Table(title="stalls, in seconds", title_justify="left")
    for column in ("fault", "times", "nothing finished", "one queue stood", "healed to next end"):
        faults.add_column(column, justify="left" if column == "fault" else "right")
    for name, stall in figures["faults"].items():
        seconds = (f"{stall[key]:.2f}" for key in ("longest", "one_queue", "back"))
        faults.add_row(name, str(stall["times"]), *seconds)
    console.print(faults)
    if figures["bystanders"]:
        console.print(bystanders(figures["bystanders"]))
    table = Table(title="the ledger", title_justify="left", show_header=False)
    table.add_column()
    table.add_column(overflow="fold")
    for name, value in figures.items():
        if name in ("faults", "bystanders", "findings", "violations", "standstills"):
            continue
        table.add_row(name, ", ".join(f"{k}: {v}" for k, v in value.items()) if isinstance(value, dict) else str(value))
    for name, count in figures["violations"].items():
        table.add_row(name.replace("_", " "), f"{count}   ({VIOLATIONS[name]})" if count else "0")
    console.print(table)
    for name, found in figures["findings"].items():
        for what in found:
            console.print(f"{name.replace('_', ' ').upper()}  {what}")
    console.print("Every promise was kept." if figures["kept"] else "Promises were BROKEN.")


def bystanders(kinds: dict[str, dict[str, float]]) -> Table:
    """What became of their requests while a fault stayed."""
    table = Table(title="bystanders while a fault stayed, in seconds (-1: never)", title_justify="left")
    table.add_column("fault")
    for column in next(iter(kinds.values())):
        table.add_column(column, justify="right")
    for name, figures in kinds.items():
        table.add_row(name, *(f"{value:.2f}" if isinstance(value, float) else str(value) for value in figures.values()))
    return table
