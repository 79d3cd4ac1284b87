"""What really ran, and when: each process appends a record of every run to a file of its own, without a round trip.

Workers of all peers write it, in Python and in Node (`node/trace.js`); the clock is the system's monotonic one.
"""

import os
import struct
import threading
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

RECORD = struct.Struct("<iiidd")  # user, number, whether it succeeded, began, ended
FOLDER = "BENCH_TRACE"

_file: tuple[int, int] | None = None  # process, descriptor: a forked child opens its own
_lock = threading.Lock()


class HeadFailed(Exception):
    """A job that fails in its first attempt, as it was asked to."""


def perform(job: dict[str, Any]) -> dict[str, Any]:
    """The work of all peers: sleeps `ms`, fails once where it is asked to, and leaves a record."""
    began = time.monotonic()
    if job["ms"]:
        time.sleep(job["ms"] / 1000)
    failed = job["fail"] and _first_attempt(job)
    record = RECORD.pack(job["user"], job["n"], not failed, began, time.monotonic())
    os.write(_descriptor(), record)  # not buffered: it survives kill -9
    if failed:
        raise HeadFailed
    return {"n": job["n"]}


def _first_attempt(job: dict[str, Any]) -> bool:
    marker = Path(os.environ[FOLDER]) / f"failed-{job['user']}-{job['n']}"
    try:
        os.close(os.open(marker, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


def _descriptor() -> int:
    global _file
    with _lock:
        if _file is None or _file[0] != os.getpid():
            path = Path(os.environ[FOLDER]) / f"{os.getpid()}.trace"
            _file = os.getpid(), os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o644)
        return _file[1]


class Run(NamedTuple):
    """One run of a job."""

    user: int
    n: int
    succeeded: int
    began: float
    ended: float


@dataclass
class Check:
    """What the records say of order: jobs that nobody ran, ran again, began too early, ran beside another of theirs."""

    lost: int = 0
    repeated: int = 0
    overtook: int = 0
    at_once: int = 0

    @property
    def violations(self) -> int:
        return self.overtook + self.at_once


@dataclass
class Trace:
    """The records of one peer's workers."""

    folder: Path

    def clear(self) -> None:
        """Forget all records; nobody may be at work."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for marker in self.folder.glob("failed-*"):
            marker.unlink()
        for path in self.folder.glob("*.trace"):
            os.truncate(path, 0)  # its writer appends, wherever the end is

    def count(self) -> int:
        """How many runs there were."""
        return sum(path.stat().st_size for path in self.folder.glob("*.trace")) // RECORD.size

    def writers(self) -> int:
        """How many processes have run any."""
        return sum(path.stat().st_size > 0 for path in self.folder.glob("*.trace"))

    def runs(self) -> list[Run]:
        """All runs in the order of their beginning."""
        found = []
        for path in self.folder.glob("*.trace"):
            data = path.read_bytes()
            whole = len(data) - len(data) % RECORD.size
            found += [Run(*values) for values in RECORD.iter_unpack(data[:whole])]
        return sorted(found, key=lambda run: run.began)

    def succeeded(self) -> int:
        """How many different jobs have succeeded."""
        return len({(run.user, run.n) for run in self.runs() if run.succeeded})


def check(runs: list[Run], jobs: list[dict[str, Any]]) -> Check:
    """Compare what ran with what was asked for."""
    of_user: dict[int, list[Run]] = defaultdict(list)
    for run in runs:
        of_user[run.user].append(run)
    found = Check()
    done = {(run.user, run.n) for run in runs if run.succeeded}
    found.lost = len({(job["user"], job["n"]) for job in jobs} - done)
    found.repeated = sum(run.succeeded for run in runs) - len(done)
    for own in of_user.values():
        found.at_once += _at_once(own)
        found.overtook += _overtook(own)
    return found


def _at_once(own: list[Run]) -> int:
    """Runs that began while an earlier one of the same user was not over."""
    count, over = 0, 0.0
    for run in own:
        count += run.began < over
        over = max(over, run.ended)
    return count


def _overtook(own: list[Run]) -> int:
    """Jobs that began before one with a smaller number had ended well."""
    began: dict[int, float] = {}
    ended: dict[int, float] = {}
    for run in own:
        began.setdefault(run.n, run.began)
        if run.succeeded:
            ended.setdefault(run.n, run.ended)
    count, before = 0, 0.0
    for n in sorted(began):
        count += began[n] < before
        before = max(before, ended.get(n, 0.0))
    return count
