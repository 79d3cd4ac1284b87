"""The same loads for this project and for its peers, in one run: rounds in rotated order, each checked for order."""

from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

from bench import loads
from bench.peers import make
from bench.peers.base import Peer, Unavailable
from bench.place import Place
from bench.report import Report, milliseconds, rate, ratio

OURS = "ours"
ROUNDS = 5
Result = dict[str, Any]


def run(here: Place, report: Report, names: Sequence[str], quick: bool, peers: Sequence[str]) -> None:
    """Put each peer through each load; what cannot be measured becomes a line."""
    asked = [name for name in loads.LOADS if name in names]
    present = available(report, peers)
    results: dict[str, dict[str, list[Result]]] = {load: {name: [] for name in present} for load in asked}
    order, most = list(present), max(loads.find(load).users(load, quick) for load in asked)
    for number in range(1 if quick else ROUNDS):
        for name in order[number % len(order) :] + order[: number % len(order)]:
            for load in asked:
                results[load][name].append(measured(here, present[name], load, quick, most))
            present[name].stop()
            report.say(f"round {number + 1}: {present[name].name} done")
    for load in asked:
        tell(report, load, quick, {present[name].name: found for name, found in results[load].items()})


def available(report: Report, peers: Sequence[str]) -> dict[str, Peer]:
    """Those that are installed, by their short names; the others are named."""
    found = {}
    for name in peers:
        try:
            found[name] = make(name)
        except (Unavailable, ImportError) as why:
            report.note(f"{name} is left out: {why}")
    return found


def measured(here: Place, peer: Peer, load: str, quick: bool, most: int) -> Result:
    """One round of one load. Peers that need to know how many users there are start anew for each number."""
    module = loads.find(load)
    users = module.users(load, quick) if peer.per_user else most
    doing = "it did not start"
    try:
        if peer.running and peer.users != users:
            peer.stop()
        if not peer.running:
            peer.start(here, users)
        doing = "not measured"
        found: Result = module.measure(peer, load, quick)
        return found
    except (Unavailable, TimeoutError, RuntimeError, OSError) as wrong:
        peer.stop()
        return {"error": f"{doing}: {wrong}"}


# What is told of each load: the column, the result it shows, and how it is written.
SPEED: list[tuple[str, str, Callable[[float], str]]] = [("jobs/s", "rate", rate)]
WAITS: list[tuple[str, str, Callable[[float], str]]] = [("p50", "p50", milliseconds), ("p99", "p99", milliseconds)]
FIGURES: dict[str, list[tuple[str, str, Callable[[float], str]]]] = {
    "slow": [*SPEED, ("of the threads' ideal", "of_ideal", lambda share: f"{share:.0%}")],
    "round-trip": WAITS,
    "noisy": [*WAITS, ("asked", "asked", rate)],
    "kill": [("all done after", "seconds", lambda seconds: f"{seconds:.1f} s")],
}
CHECKS = [("overtook", "overtook"), ("two at once", "at_once"), ("run again", "repeated"), ("lost", "lost")]


def tell(report: Report, load: str, quick: bool, found: dict[str, list[Result]]) -> None:
    """A line a peer: medians, ranges, and what the checks found in all rounds together."""
    figures = FIGURES.get(load, SPEED)
    leading = figures[0]
    columns = [title for title, _, _ in figures]
    checks = [title for title, _ in CHECKS]
    about = loads.find(load).about(load, quick)
    table = report.table(about, "", *columns, "range", "ours is", *checks, "records")
    ours = next(iter(found.values()))
    for name, rounds in found.items():
        good = [one for one in rounds if "error" not in one]
        if not good:
            table.add_row(name, *["-"] * len(columns))
            report.note(f"{load}: {name}: {rounds[0]['error']}")
            continue
        cells = [_median(good, key, write) for _, key, write in figures]
        totals = [f"{sum(one[key] for one in good):,.0f}" for _, key in CHECKS]
        beside = ahead(ours, rounds, leading[1]) if rounds is not ours else None
        table.add_row(
            name,
            *cells,
            _range(good, leading[1], leading[2]),
            "" if beside is None else ratio(beside),
            *totals,
            _records(good),
        )
        if beside is not None:
            report.verdict(f"{load} beside {name}", beside, None)
    report.raw[load] = found
    title, key, _ = leading
    values = {name: [one[key] for one in rounds if key in one] for name, rounds in found.items()}
    report.chart(f"{load}, {title}", values, seconds=key != "rate")
    report.show(table)


def ahead(ours: list[Result], theirs: list[Result], key: str) -> float | None:
    """How many times as fast, or as short a wait, round by round; None where a side has no figure."""
    pairs = [(our[key], their[key]) for our, their in zip(ours, theirs, strict=True) if key in our and key in their]
    if not pairs:
        return None
    return median(our / their if key == "rate" else their / our for our, their in pairs)


def _median(good: list[Result], key: str, write: Callable[[float], str]) -> str:
    values = [one[key] for one in good if key in one]
    return write(median(values)) if values else "-"


def _range(good: list[Result], key: str, write: Callable[[float], str]) -> str:
    values = [one[key] for one in good if key in one]
    return f"{write(min(values))} .. {write(max(values))}" if values else "-"


def _records(good: list[Result]) -> str:
    """Whether its own records say that each job finished exactly once."""
    wrong = [one["recorded"] for one in good if "recorded" in one]
    if not wrong:
        return "none" if not any("p50" in one or "seconds" in one for one in good) else "-"
    return "one a job" if not any(wrong) else f"{max(wrong, key=abs):+,.0f}"
