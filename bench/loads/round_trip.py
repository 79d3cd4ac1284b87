"""One job at a time on an idle system: from before it is enqueued until its handler has ended."""

import time
from functools import partial
from statistics import quantiles

from bench.peers.base import Job, Peer
from bench.place import wait_for
from bench.trace import check


def about(name: str, quick: bool) -> str:
    return f"{name}: one job at a time, from enqueueing to its end"


def users(name: str, quick: bool) -> int:
    return 16


def measure(peer: Peer, name: str, quick: bool) -> dict[str, float]:
    """The same user's jobs, one after the other."""
    jobs: list[Job] = [{"user": 0, "n": n, "ms": 0, "fail": False} for n in range(20 if quick else 200)]
    asked = {}
    for job in jobs:
        asked[job["n"]] = peer.add([job])
        wait_for(partial(_ran, peer, job["n"] + 1), "a job", every=0.001)
        time.sleep(0.005)  # as a user who looks at the answer
    runs = peer.trace.runs()
    peer.settled(len(jobs), name)
    peer.clear()
    return {**percentiles([run.ended - asked[run.n] for run in runs]), **vars(check(runs, jobs))}


def _ran(peer: Peer, jobs: int) -> bool:
    return peer.trace.count() >= jobs


def percentiles(waits: list[float]) -> dict[str, float]:
    """In seconds."""
    if len(waits) < 2:
        raise RuntimeError("too few jobs were done to tell how long one waits")
    cuts = quantiles(waits, n=100, method="inclusive")
    return {"p50": cuts[49], "p99": cuts[98]}
