"""Whether the promises were kept: read from what the clients were told, what PostgreSQL saw and what handlers noted.

Every figure is counted from the evidence alone; nothing here asks the code under test.
"""

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from itertools import pairwise

from scripts.chaos.bystanders import stays
from scripts.chaos.clients import FINAL, Counts
from scripts.chaos.evidence import SLACK, Evidence, Held, Run, leases_of, runs_of
from scripts.chaos.witness import Final, Row

UNINTERRUPTIBLE = 5.0  # a handler that goes on for so long after its limit is given up with its process
HANGING = "chaos.hang"
SHOWN = 5  # findings of a kind are described, the others counted
EXPECTED = {  # how else may a request of this kind end, but succeeded, cancelled or expired
    "chaos.poison": {"failed"},
    "chaos.block": {"failed"},
    "chaos.hang": {"failed"},
    "chaos.overtime": {"failed"},
    "chaos.reject": {"failed"},
}


VIOLATIONS = {
    "lost": "accepted, but without a final row, or without the run or the effect that its row tells of",
    "recorded_twice": "an outcome or an atomic effect written more than once",
    "out_of_order": "started or recorded before one with a smaller sequence number",
    "overlapping": "two runs of one user at once, the older one's lease not expired",
    "unfenced": "an outcome recorded by somebody whose lease had been taken away",
    "contradicted": "the API, the rows and the results tell different things, or a healthy request did not succeed",
    "bystanders_stalled": "asked for by a user whom a staying fault does not concern, and not finished within 3 s",
}


@dataclass
class Ledger:
    violations: dict[str, list[str]] = field(default_factory=lambda: {name: [] for name in VIOLATIONS})
    statuses: Counter[str] = field(default_factory=Counter)
    counts: Counts = field(default_factory=Counts)
    runs: int = 0
    attempts: int = 0
    duplicates: int = 0
    zombie_runs: int = 0
    zombie_overlaps: int = 0
    given_up_overlaps: int = 0
    killed_runs: int = 0

    @property
    def kept(self) -> bool:
        """Whether every promise was."""
        return not any(self.violations.values())

    def blame(self, violation: str, what: str) -> None:
        self.violations[violation].append(what)


def judge(evidence: Evidence) -> Ledger:
    """The ledger of it."""
    return _Judge(evidence).ledger()


class _Judge:
    def __init__(self, evidence: Evidence) -> None:
        self.evidence = evidence
        self.clients = evidence.clients
        self.seen = evidence.seen
        self.runs = runs_of(evidence.lines, evidence.deaths)
        self.leases = leases_of(evidence.seen.moves)
        self.rows: dict[str, Row] = {row.id: row for row in evidence.seen.rows}
        self.queues = {row.user: row.queue for row in evidence.seen.rows}
        self.finals: dict[str, list[Final]] = defaultdict(list)
        for final in evidence.seen.finals:
            self.finals[final.request].append(final)
        self.by_request: dict[str, list[Run]] = defaultdict(list)
        self.by_user: dict[str, list[Run]] = defaultdict(list)
        for run in self.runs:
            self.by_request[run.begin.request].append(run)
            self.by_user[run.begin.user].append(run)
        self.found = Ledger(counts=evidence.clients.counts)

    def ledger(self) -> Ledger:
        self.count()
        self.look_for_lost()
        self.look_for_recorded_twice()
        self.look_for_unfenced()
        self.look_for_recorded_out_of_order()
        for user, runs in self.by_user.items():
            self.look_for_started_out_of_order(user, runs)
            self.look_for_overlapping(user, runs)
        self.look_for_contradictions()
        self.look_for_stalled()
        return self.found

    def count(self) -> None:
        found = self.found
        found.statuses = Counter(row.status for row in self.rows.values())
        found.runs = len(self.runs)
        found.attempts = sum(row.attempt for row in self.rows.values())
        found.killed_runs = sum(run.how in ("killed", "exit") for run in self.runs)
        for runs in self.by_request.values():
            attempts: set[int] = set()
            succeeded = False
            for run in runs:
                found.duplicates += run.begin.attempt in attempts or succeeded
                attempts.add(run.begin.attempt)
                succeeded = succeeded or run.how == "ok"

    def look_for_lost(self) -> None:
        for user, accepted in self.clients.accepted.items():
            for request in accepted:
                if request not in self.rows:
                    self.found.blame("lost", f"{user}: {request} was accepted and has no row")
        effects = Counter(self.seen.effects)
        for row in self.rows.values():
            if row.status not in FINAL:
                self.found.blame("lost", f"{self._name(row)} is {row.status} for ever")
            elif row.status == "succeeded" and not any(run.how == "ok" for run in self.by_request[row.id]):
                self.found.blame("lost", f"{self._name(row)} succeeded, but no run of it did")
            elif row.status == "succeeded" and row.kind == "chaos.atomic" and not effects[row.id]:
                self.found.blame("lost", f"{self._name(row)} succeeded, but what it wrote is gone")

    def look_for_recorded_twice(self) -> None:
        for request, finals in self.finals.items():
            if len(finals) > 1:
                became = ", ".join(f"{final.status} at {final.at:.3f}" for final in finals)
                self.found.blame("recorded_twice", f"{request} became {became}")
        for request, count in Counter(self.seen.effects).items():
            row = self.rows.get(request)
            if count > 1:
                self.found.blame("recorded_twice", f"{request} wrote its effect {count} times")
            elif row is None or row.status != "succeeded":
                self.found.blame("recorded_twice", f"{request} wrote its effect, but is {row and row.status}")

    def look_for_unfenced(self) -> None:
        runs = {run.name: run for run in self.runs}
        for final in self.seen.finals:
            run = runs.get(final.run or "")
            lease = self._lease(run) if run else None
            if lease and lease.taken and lease.ended is not None and final.at > lease.ended:
                late = final.at - lease.ended
                self.found.blame(
                    "unfenced", f"{final.request} was recorded {late:.3f} s after its lease was taken away"
                )

    def look_for_recorded_out_of_order(self) -> None:
        """What a handler or its policy ended is recorded in order; owners may cancel whatever waits."""
        newest: dict[int, tuple[int, int]] = {}  # the highest place that was recorded, and in which transaction
        for final in self.seen.finals:
            if final.seq is None or final.status not in ("succeeded", "failed"):
                continue
            highest, tx = newest.get(final.queue, (0, 0))
            if final.seq < highest and final.tx != tx:
                self.found.blame("out_of_order", f"queue {final.queue}: {final.seq} was recorded after {highest}")
            newest[final.queue] = max((highest, tx), (final.seq, final.tx))
        for user, accepted in self.clients.accepted.items():
            before = 0
            for request, seq in accepted.items():
                if seq is not None:
                    if seq <= before:
                        self.found.blame("out_of_order", f"{user}: {request} got {seq}, the one before {before}")
                    before = seq

    def look_for_started_out_of_order(self, user: str, runs: list[Run]) -> None:
        """When a run begins under a living lease, the one before it in line is over: its last attempt has ended."""
        queue = self.queues.get(user, 0)
        line = (
            sorted(
                (row.seq, row)
                for row in self.rows.values()
                if row.queue == queue and row.seq is not None and self.by_request[row.id]
            )
            if runs
            else []
        )
        before = {row.id: previous for (_, previous), (_, row) in pairwise(line)}
        for run in runs:
            previous = before.get(run.begin.request)
            if previous is not None and self._lives(run) and not self._over(previous, run.begin.at):
                self.found.blame(
                    "out_of_order",
                    f"{user}: {run.begin.seq} began at {run.begin.at:.3f} before {previous.seq} was over",
                )

    def _over(self, row: Row, at: float) -> bool:
        """Whether its last attempt had ended: its run says so, or its outcome was written."""
        ended = any(
            run.over_by(at) and (run.how == "ok" or (run.how == "error" and run.begin.attempt == row.attempt))
            for run in self.by_request[row.id]
        )
        return ended or any(final.at <= at + SLACK for final in self.finals[row.id])

    def look_for_overlapping(self, user: str, runs: list[Run]) -> None:
        open_: list[Run] = []
        for run in runs:
            self.found.zombie_runs += not self._lives(run)
            open_ = [other for other in open_ if not other.over_by(run.begin.at)]
            for other in open_:
                self._compare(user, other, run)
            open_.append(run)

    def _compare(self, user: str, first: Run, second: Run) -> None:
        """The two ran at once. That is allowed to one whose lease is over and who does not know yet."""
        older, newer = sorted((first, second), key=lambda run: run.begin.fence)
        lease = self._lease(older)
        at = second.begin.at
        if lease and older.begin.fence < newer.begin.fence and lease.expired_by(at):
            self.found.zombie_overlaps += 1
        elif older.begin.kind == HANGING and lease and lease.ended and lease.ended <= at and not lease.taken:
            self.found.given_up_overlaps += 1
        else:
            how = "taken away before its time" if lease and lease.taken else "alive"
            self.found.blame(
                "overlapping",
                f"{user}: {second} began at {at:.3f} while {first} ran until {first.ended}; the older lease was {how}",
            )

    def look_for_contradictions(self) -> None:
        known = {request for accepted in self.clients.accepted.values() for request in accepted}
        in_doubt = set(self.clients.doubtful)
        for row in self.rows.values():
            if row.id in known or row.retry or self.clients.counts.unresolved:
                continue
            if row.trace in in_doubt:
                in_doubt.remove(row.trace)  # a second row of it would be one too many
            else:
                self.found.blame("contradicted", f"{self._name(row)} was accepted, and no client knows it")
        for row in self.rows.values():
            if row.status in FINAL and not self.finals[row.id]:
                self.found.blame("contradicted", f"{self._name(row)} is {row.status}, and nobody saw it recorded")
            if row.status == "succeeded" and row.request_in_result != row.id:
                self.found.blame("contradicted", f"{self._name(row)} has the result of {row.request_in_result}")
            allowed = {"succeeded", "cancelled", "expired"} | EXPECTED.get(row.kind, set())
            if row.status in FINAL and row.status not in allowed:
                self.found.blame("contradicted", f"{self._name(row)} is {row.status} after {row.attempt} attempts")
        for shown in (*self.clients.final.values(), *self.clients.listed.values()):
            for request, said in shown.items():
                kept = self.rows.get(request)
                if kept is None or (said["status"], said["sequence"]) != (kept.status, kept.seq):
                    self.found.blame("contradicted", f"the API showed {request} as {said['status']}, the row is {kept}")

    def look_for_stalled(self) -> None:
        for stay in stays(self.evidence.faults, self.evidence.probes, self.seen.rows):
            for what in stay.stalled:
                self.found.blame("bystanders_stalled", what)

    def _lease(self, run: Run) -> Held | None:
        return self.leases.get((self.queues.get(run.begin.user, 0), run.begin.fence))

    def _lives(self, run: Run) -> bool:
        """Whether it began under a living lease."""
        lease = self._lease(run)
        return lease is not None and lease.lives(run.begin.at)

    @staticmethod
    def _name(row: Row) -> str:
        return f"{row.user}: {row.seq} ({row.kind}, {row.id})"
