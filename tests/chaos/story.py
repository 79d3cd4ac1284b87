"""Makes up evidence: what the clients, PostgreSQL and the handlers would have told of one user's queue."""

from dataclasses import replace
from typing import Any, Self

from scripts.chaos.evidence import ClientRecord, Evidence
from scripts.chaos.fault import Struck
from scripts.chaos.journal import JournalEntry
from scripts.chaos.ledger import Ledger, judge
from scripts.chaos.probes import Probe
from scripts.chaos.stalls import Recovery, Stalls, recovery, stalls
from scripts.chaos.witness import Final, Moved, Row, Seen

ANN, QUEUE = "ann", 1


class Story:
    """ClientRecord in the order of time; without a slip it is the story of a queue that keeps every promise."""

    def __init__(self) -> None:
        self.clients = ClientRecord({ANN: {}})
        self.seen = Seen([], [], [], [])
        self.lines: list[JournalEntry] = []
        self.deaths: dict[int, list[float]] = {}
        self.faults: list[Struck] = []
        self.probes: list[Probe] = []
        self.fence = 0
        self.tx = 0

    def accept(self, *seqs: int, kind: str = "chaos.work", at: float = 0) -> Self:
        for seq in seqs:
            self.clients.accepted[ANN][f"r{seq}"] = seq
            self.seen.rows.append(Row(f"r{seq}", ANN, QUEUE, seq, kind, "queued", 0, at, None, False, None))
        return self

    def lease(self, at: float) -> Self:
        self.seen.moves.append(Moved(at, QUEUE, self.fence, self.fence + 1, "ready", "draining", None))
        self.fence += 1
        return self

    def end_lease(self, at: float) -> Self:
        self.seen.moves.append(Moved(at, QUEUE, self.fence, self.fence, "draining", "idle", at + 3))
        return self

    def take_away(self, at: float, *, expired: bool = True) -> Self:
        until = at - 0.1 if expired else at + 2
        self.seen.moves.append(Moved(at, QUEUE, self.fence, self.fence + 1, "draining", "ready", until))
        self.fence += 1
        return self

    def begin(self, seq: int, at: float, **more: Any) -> Self:
        return self._line("begin", seq, at, **more)

    def end(self, seq: int, at: float, how: str = "ok", **more: Any) -> Self:
        return self._line(how, seq, at, **more)

    def run(self, seq: int, begin: float, end: float, how: str = "ok", **more: Any) -> Self:
        return self.begin(seq, begin, **more).end(seq, end, how, **more)

    def record(self, at: float, *seqs: int, status: str = "succeeded", run: str | None = None) -> Self:
        """In one transaction."""
        self.tx += 1
        for seq in seqs:
            self.seen.finals.append(Final(at, self.tx, f"r{seq}", QUEUE, seq, status, run))
            self.change(seq, status=status, finished=at, attempt=1, request_in_result=f"r{seq}")
        return self

    def change(self, seq: int, **fields: Any) -> Self:
        """Make the row of that place another."""
        self.seen.rows[:] = [replace(row, **fields) if row.seq == seq else row for row in self.seen.rows]
        return self

    def die(self, pid: int, at: float) -> Self:
        self.deaths.setdefault(pid, []).append(at)
        return self

    def trouble(self, name: str, began: float, healed: float) -> Self:
        self.faults.append(Struck(len(self.faults) + 1, name, began, began, healed))
        return self

    def stay(self, name: str, struck: float, healed: float, grace: float = 0) -> Self:
        self.faults.append(Struck(len(self.faults) + 1, name, struck, struck, healed, "", "", struck + grace, healed))
        return self

    def serve(self, seq: int, asked: float, finished: float) -> Self:
        """A bystander's request, from beginning to end."""
        self.probes.append(Probe(ANN, asked, f"r{seq}"))
        return self.accept(seq, at=asked).run(seq, finished - 0.02, finished - 0.01).record(finished, seq)

    @property
    def evidence(self) -> Evidence:
        lines = sorted(self.lines, key=lambda line: line.at)
        return Evidence(self.clients, self.seen, lines, self.deaths, self.faults, self.probes)

    def judged(self) -> Ledger:
        return judge(self.evidence)

    def stalls(self) -> dict[str, Stalls]:
        return stalls(self.evidence)

    def recovery(self) -> Recovery:
        return recovery(self.evidence)

    def broken(self) -> set[str]:
        """Which promises were."""
        return {name for name, found in self.judged().violations.items() if found}

    def _line(
        self,
        what: str,
        seq: int,
        at: float,
        *,
        pid: int = 1,
        attempt: int = 1,
        fence: int = 0,
        kind: str = "chaos.work",
    ) -> Self:
        self.lines.append(JournalEntry(what, at, pid, pid, fence or self.fence, ANN, seq, attempt, f"r{seq}", kind))
        return self


def healthy() -> Story:
    """Three requests, run and recorded in one turn."""
    story = Story().accept(1, 2, 3).lease(1.0)
    story.run(1, 1.1, 1.2).record(1.21, 1).run(2, 1.3, 1.4).run(3, 1.4, 1.5).record(1.51, 2, 3)
    return story.end_lease(1.51)
