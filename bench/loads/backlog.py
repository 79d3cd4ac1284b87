"""A backlog, from the moment warm workers may begin until the last outcome is recorded.

The workers stand still (SIGSTOP) while it is enqueued. Where a peer keeps no record, the last job's end is the end.
"""

import random
import time
from dataclasses import dataclass

from bench.peers.base import PROCESSES, THREADS, Job, Peer
from bench.place import wait_for
from bench.trace import check


@dataclass(frozen=True)
class Backlog:
    """So many users with so many jobs each, of `ms` milliseconds; a share of the jobs fails in its first attempt."""

    about: str
    users: int
    each: int
    ms: float = 0
    fails: float = 0

    @property
    def ideal(self) -> float:
        """Seconds that as many threads need at least."""
        return self.users * self.each * self.ms / 1000 / (PROCESSES * THREADS)


BACKLOGS = {
    "deep": Backlog("100 users, 100 jobs each", 100, 100),
    "middle": Backlog("1,000 users, 20 jobs each", 1_000, 20),
    "wide": Backlog("5,000 users, one job each", 5_000, 1),
    "slow": Backlog("200 users, 10 jobs of 20 ms each", 200, 10, ms=20),
    "failing": Backlog("200 users, 20 jobs each; 1 % fail in their first attempt", 200, 20, fails=0.01),
}
QUICK = {
    "deep": Backlog("50 users, 20 jobs each", 50, 20),
    "middle": Backlog("100 users, 10 jobs each", 100, 10),
    "wide": Backlog("200 users, one job each", 200, 1),
    "slow": Backlog("50 users, 4 jobs of 20 ms each", 50, 4, ms=20),
    "failing": Backlog("50 users, 10 jobs each; 1 % fail in their first attempt", 50, 10, fails=0.01),
}


def about(name: str, quick: bool) -> str:
    return f"{name}: a backlog of {(QUICK if quick else BACKLOGS)[name].about}"


def users(name: str, quick: bool) -> int:
    return (QUICK if quick else BACKLOGS)[name].users


def measure(peer: Peer, name: str, quick: bool) -> dict[str, float]:
    """Drain one backlog. Raises TimeoutError."""
    asked = (QUICK if quick else BACKLOGS)[name]
    jobs = made(asked)
    seconds = drain(peer, jobs, name)
    runs = peer.trace.runs()
    found = check(runs, jobs)
    recorded = peer.outcomes()
    peer.clear()
    result = {"rate": len(jobs) / seconds, "seconds": seconds, **vars(found)}
    if asked.ideal:
        result["of_ideal"] = asked.ideal / seconds
    if recorded is not None:
        result["recorded"] = recorded - len(jobs)
    return result


def made(asked: Backlog) -> list[Job]:
    """The jobs, the users' first ones first; which of them fail is the same for all peers."""
    dice = random.Random(1)
    return [
        {"user": user, "n": n, "ms": asked.ms, "fail": dice.random() < asked.fails}
        for n in range(asked.each)
        for user in range(asked.users)
    ]


def drain(peer: Peer, jobs: list[Job], name: str) -> float:
    """Seconds until all of them are done and recorded."""
    least = len(jobs) + sum(job["fail"] for job in jobs)
    peer.pause()
    try:
        peer.add(jobs)
        peer.brought()
    finally:
        began = time.monotonic()
        peer.resume()
    try:
        wait_for(lambda: peer.trace.count() >= least, "", seconds=peer.limit, every=0.01)
    except TimeoutError:
        done = peer.trace.succeeded()
        raise TimeoutError(f"{done:,} of {len(jobs):,} jobs were done after {peer.limit:g} s") from None
    peer.settled(len(jobs), name)
    return (time.monotonic() if peer.record else max(run.ended for run in peer.trace.runs())) - began
