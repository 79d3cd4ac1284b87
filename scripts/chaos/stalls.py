"""How long things stood still, and how soon they went on: the recovery figures of a run.

A gap is blamed on one fault: the one that was there for most of it, or else the last one before it.
"""

from bisect import bisect_left, bisect_right
from collections import defaultdict
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from scripts.chaos.evidence import Evidence, Run, death_after, leases_of, runs_of
from scripts.chaos.fault import Struck

NOTABLE = 0.1  # shorter gaps are none
AFTERWARDS = 0.5  # seconds after a fault was healed that still count as its time


@dataclass
class Stalls:
    """Of one kind of fault, in seconds."""

    times: int = 0
    failed: int = 0
    longest: float = 0.0  # nothing finished although work waited
    one_queue: float = 0.0  # one queue with work did nothing
    back: float = 0.0  # from healed to the next end of a run, where work waited and no other fault was there


@dataclass
class Recovery:
    """After handlers' processes died: seconds until a queue whose request they ran began it again."""

    all: list[float] = field(default_factory=list)
    undisturbed: list[float] = field(default_factory=list)  # no other fault was there meanwhile
    repeated_age: list[float] = field(
        default_factory=list
    )  # how long before its worker's death repeated work had ended


def stalls(evidence: Evidence) -> dict[str, Stalls]:
    """By kind of fault."""
    found: dict[str, Stalls] = defaultdict(Stalls)
    ends = _ends(evidence)
    waiting = covered(_lives(evidence))
    for fault in evidence.faults:
        stall = found[fault.name]
        stall.times += 1
        stall.failed += bool(fault.failed)
        after = bisect_left(ends, fault.healed)
        if after == len(ends) or not any(begin <= fault.healed and ends[after] <= end for begin, end in waiting):
            continue  # nothing waited all the time
        if there(evidence.faults, fault.healed, ends[after]) == [fault]:
            stall.back = max(stall.back, ends[after] - fault.healed)
    for begin, end in gaps(_lives(evidence), ends):
        for fault in blamed(evidence.faults, begin, end):
            found[fault.name].longest = max(found[fault.name].longest, end - begin)
    for _, begin, end in queue_gaps(evidence):
        for fault in blamed(evidence.faults, begin, end):
            found[fault.name].one_queue = max(found[fault.name].one_queue, end - begin)
    return dict(sorted(found.items()))


def standstills(evidence: Evidence, count: int) -> list[dict[str, Any]]:
    """The longest gaps, of all queues together and of one, with the faults that were there. Times since the start."""
    start = min((fault.began for fault in evidence.faults), default=0.0)
    everybody = [("all", begin, end) for begin, end in gaps(_lives(evidence), _ends(evidence))]
    found = []
    for some in (everybody, queue_gaps(evidence)):
        for whose, begin, end in sorted(some, key=lambda gap: gap[1] - gap[2])[:count]:
            names = [
                f"{fault.name} {fault.began - start:.1f} to {fault.healed - start:.1f}"
                for fault in there(evidence.faults, begin, end)
            ]
            times = {"from": round(begin - start, 2), "seconds": round(end - begin, 2)}
            found.append({"queue": whose, **times, "faults": names})
    return found


def _ends(evidence: Evidence) -> list[float]:
    return sorted(line.at for line in evidence.lines if line.what != "begin")


def _lives(evidence: Evidence) -> list[tuple[float, float]]:
    return [(row.created, row.finished) for row in evidence.seen.rows if row.finished]


def queue_gaps(evidence: Evidence) -> list[tuple[str, float, float]]:
    """For each user whose queue nobody meddled with: when it had work and nothing of it began or ended."""
    steps: dict[str, list[float]] = defaultdict(list)
    for line in evidence.lines:
        steps[line.user].append(line.at)
    waits: dict[str, list[tuple[float, float]]] = defaultdict(list)
    meddled = {row.user for row in evidence.seen.rows if row.status in ("cancelled", "expired") or row.retry}
    for row in evidence.seen.rows:
        if row.user not in meddled and row.finished:
            waits[row.user].append((row.created, row.finished))
    return [(user, *gap) for user, lives in waits.items() for gap in gaps(lives, steps[user])]


def gaps(lives: list[tuple[float, float]], steps: list[float]) -> list[tuple[float, float]]:
    """The notable times between two steps (sorted) in which something waited. `lives`: accepted and finished."""
    found = []
    for begin, end in covered(lives):
        inside = steps[bisect_right(steps, begin) : bisect_right(steps, end)]
        found += [gap for gap in zip([begin, *inside], [*inside, end], strict=True) if gap[1] - gap[0] > NOTABLE]
    return found


def covered(lives: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """The union of intervals, as intervals."""
    union: list[tuple[float, float]] = []
    for begin, end in sorted(lives):
        if union and begin <= union[-1][1]:
            union[-1] = union[-1][0], max(end, union[-1][1])
        else:
            union.append((begin, end))
    return union


def there(faults: list[Struck], begin: float, end: float) -> list[Struck]:
    return [fault for fault in faults if fault.began <= end and fault.healed + AFTERWARDS >= begin]


def blamed(faults: list[Struck], begin: float, end: float) -> list[Struck]:
    """The one fault that was there for most of the gap, else the last before it, else none."""
    if found := there(faults, begin, end):
        return [max(found, key=lambda fault: min(fault.healed, end) - max(fault.began, begin))]
    return [fault for fault in faults if fault.began < begin][-1:]


def recovery(evidence: Evidence) -> Recovery:
    found = Recovery()
    by_user: dict[str, list[Run]] = defaultdict(list)
    for run in runs_of(evidence.lines, evidence.deaths):
        by_user[run.begin.user].append(run)
    for runs in by_user.values():
        for run, following in pairwise(runs):
            died = death_after(run.begin, evidence.deaths)
            if died is None:
                continue
            if run.how == "killed" and following.begin.at > died:
                took = following.begin.at - died
                found.all.append(took)
                others = [
                    fault
                    for fault in there(evidence.faults, died, following.begin.at)
                    if not fault.name.startswith(("worker.kill", "handler."))
                ]
                if not others:
                    found.undisturbed.append(took)
    leases, queues = leases_of(evidence.seen.moves), {row.user: row.queue for row in evidence.seen.rows}
    first: dict[str, Run] = {}
    for runs in by_user.values():
        for run in runs:
            earlier = first.get(run.begin.request)
            if earlier is None:
                if run.how == "ok":
                    first[run.begin.request] = run
            elif earlier.ended is not None:
                died = death_after(earlier.begin, evidence.deaths)
                lease = leases.get((queues.get(earlier.begin.user, 0), earlier.begin.fence))
                held = lease is not None and died is not None and (lease.ended is None or lease.ended >= died)
                if held and died is not None and died <= run.begin.at:
                    found.repeated_age.append(died - earlier.ended)
    return found
