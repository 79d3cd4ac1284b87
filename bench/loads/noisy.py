"""How long a quiet user waits while another one's thousands of jobs are under way."""

import time

from bench.loads.round_trip import percentiles
from bench.peers.base import Job, Peer
from bench.place import wait_for
from bench.trace import check

FLOOD, QUIET, MS = 4_000, 1, 2
EVERY = 0.05  # seconds between two jobs of the quiet user


def about(name: str, quick: bool) -> str:
    return f"{name}: a quiet user's jobs beside {FLOOD:,} jobs of 2 ms of one neighbour"


def users(name: str, quick: bool) -> int:
    return 16


def measure(peer: Peer, name: str, quick: bool) -> dict[str, float]:
    """The quiet user asks for as long as the flood lasts, at most so often. Its workers are stopped afterwards."""
    peer.pause()
    flood: list[Job] = [{"user": 0, "n": n, "ms": MS, "fail": False} for n in range(FLOOD)]
    peer.add(flood)
    peer.resume()
    wait_for(lambda: peer.trace.count(), "the flood", every=0.005)
    asked: list[float] = []
    while len(asked) < (20 if quick else 100) and peer.trace.count() < FLOOD:
        asked.append(peer.add([{"user": QUIET, "n": len(asked), "ms": 0, "fail": False}]))
        time.sleep(EVERY)

    def quiet() -> list[float]:
        return [run.ended - asked[run.n] for run in peer.trace.runs() if run.user == QUIET]

    wait_for(lambda: len(quiet()) >= len(asked), "the quiet user's jobs", peer.limit, every=0.1)
    runs = peer.trace.runs()
    found = check(runs, [])
    peer.stop()  # what is left of the flood goes with its next start
    waits = [run.ended - asked[run.n] for run in runs if run.user == QUIET]
    return {"asked": len(asked), **percentiles(waits), **vars(found)}
