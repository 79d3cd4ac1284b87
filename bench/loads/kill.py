"""kill -9 of one of the worker processes in the middle, and another one in its place: what is lost, repeated, late."""

import contextlib
import time

from bench.loads.backlog import Backlog, made
from bench.peers.base import Peer
from bench.place import wait_for
from bench.trace import check


def about(name: str, quick: bool) -> str:
    return f"{name}: kill -9 of one worker process in the middle, told after at most {limit(quick):g} s"


def users(name: str, quick: bool) -> int:
    return 100


def limit(quick: bool) -> float:
    """Seconds in which a peer may recover."""
    return 10 if quick else 60


def measure(peer: Peer, name: str, quick: bool) -> dict[str, float]:
    """100 users with 20 jobs of 5 ms each; a third is done when it happens."""
    jobs = made(Backlog("", 100, 20, ms=5))
    peer.pause()
    peer.add(jobs)
    peer.brought()
    peer.resume()
    wait_for(lambda: peer.trace.count() >= len(jobs) // 3, "a third of the jobs", peer.limit, 0.002)
    died = peer.workers.pop()
    died.kill()
    peer.here.started.remove(died)
    began = time.monotonic()
    peer.start_worker(peer.processes - 1)
    with contextlib.suppress(TimeoutError):  # it is told how many are missing
        wait_for(lambda: peer.trace.succeeded() >= len(jobs), "", limit(quick), every=0.1)
    found = check(peer.trace.runs(), jobs)
    late = {} if found.lost else {"seconds": max(run.ended for run in peer.trace.runs()) - began}
    peer.stop()
    return {**late, **vars(found)}
