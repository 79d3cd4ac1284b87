"""What there is to judge by: runs that handlers noted, leases that PostgreSQL saw, what clients were told."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from scripts.chaos.clients import Counts
from scripts.chaos.fault import Struck
from scripts.chaos.journal import JournalEntry
from scripts.chaos.probes import Probe
from scripts.chaos.witness import Moved, Seen

SLACK = 0.002  # between the two clocks


@dataclass
class Run:
    """One execution of a handler."""

    begin: JournalEntry
    ended: float | None = None
    how: str = "killed"

    @property
    def name(self) -> str:
        """As the result says it."""
        return f"{self.begin.pid}@{self.begin.at:.9f}"

    def __str__(self) -> str:
        return f"{self.begin.seq} (pid {self.begin.pid}, fence {self.begin.fence})"

    def over_by(self, at: float) -> bool:
        return self.ended is not None and self.ended <= at


@dataclass
class Held:
    """A lease: from when until when, and whether it was taken away, and then whether its time was over."""

    began: float
    ended: float | None = None
    taken: bool = False
    expired: bool = False

    def lives(self, at: float) -> bool:
        return self.began - SLACK <= at and (self.ended is None or at <= self.ended + SLACK)

    def expired_by(self, at: float) -> bool:
        return self.taken and self.expired and self.ended is not None and at >= self.ended - SLACK


@dataclass
class ClientRecord:
    """What the clients know: for each user their ids with sequences, what they saw to be final, what the API lists."""

    accepted: dict[str, dict[str, int | None]]
    final: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    listed: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    counts: Counts = field(default_factory=Counts)
    doubtful: set[str] = field(default_factory=set)  # what was sent once, and got no answer


@dataclass
class Evidence:
    """All there is to judge."""

    clients: ClientRecord
    seen: Seen
    lines: list[JournalEntry]
    deaths: dict[int, list[float]] = field(default_factory=dict)  # the same pid may come again
    faults: list[Struck] = field(default_factory=list)
    probes: list[Probe] = field(default_factory=list)  # of the bystanders


def runs_of(lines: Iterable[JournalEntry], deaths: dict[int, list[float]]) -> list[Run]:
    """Begins and ends paired; a run whose process died ended then, at the latest."""
    open_: dict[tuple[int, int], Run] = {}
    runs = []
    for line in lines:
        thread = line.pid, line.thread
        if line.what == "begin":
            open_[thread] = run = Run(line)
            runs.append(run)
        elif thread in open_:
            run = open_.pop(thread)
            run.ended, run.how = line.at, line.what
    for run in runs:
        if run.ended is None:
            run.ended = death_after(run.begin, deaths)
    return runs


def death_after(line: JournalEntry, deaths: dict[int, list[float]]) -> float | None:
    """When the process of that line died."""
    return next((died for died in deaths.get(line.pid, []) if died >= line.at), None)


def leases_of(moves: Iterable[Moved]) -> dict[tuple[int, int], Held]:
    """By queue and fence."""
    leases: dict[tuple[int, int], Held] = {}
    for move in moves:
        before = leases.get((move.queue, move.old_fence))
        if move.old_state == "draining" and before is not None and before.ended is None:
            before.ended = move.at
            before.taken = move.fence != move.old_fence
            before.expired = move.old_until is not None and move.old_until <= move.at
        if move.state == "draining" and move.fence != move.old_fence:
            leases[move.queue, move.fence] = Held(move.at)
    return leases
