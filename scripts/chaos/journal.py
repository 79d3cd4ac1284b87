"""What handlers write down about their own runs, each process into a file of its own: the ledger's evidence.

A line is one write at the end of the file, so that a process that is killed right after it has written it all the same.
Times are CLOCK_MONOTONIC, which all processes of a machine share.
"""

import os
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

FOLDER = "CHAOS_JOURNAL"  # the environment variable that names the folder
_files: dict[int, int] = {}


@dataclass(frozen=True)
class JournalEntry:
    """One moment of one run: `begin`, or how it ended: `ok`, `error`, `exit` (it ends its process)."""

    what: str
    at: float
    pid: int
    thread: int
    fence: int  # of the lease it ran under
    user: str
    seq: int
    attempt: int
    request: str
    kind: str


def note(what: str, fence: int, user: object, seq: int, attempt: int, request: object, kind: str) -> float:
    """Write one line; when that was."""
    now = time.monotonic_ns()
    pid = os.getpid()
    if pid not in _files:
        path = Path(os.environ[FOLDER]) / str(pid)
        _files[pid] = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    line = f"{what} {now} {pid} {threading.get_native_id()} {fence} {user} {seq} {attempt} {request} {kind}\n"
    os.write(_files[pid], line.encode())
    return now / 1e9


def read(folder: Path) -> list[JournalEntry]:
    """All lines of all processes in the order of time."""
    lines = [line for path in folder.iterdir() for line in parse(path.read_text().splitlines())]
    return sorted(lines, key=lambda line: line.at)


def parse(lines: Iterable[str]) -> Iterator[JournalEntry]:
    for line in lines:
        what, at, pid, thread, fence, user, seq, attempt, request, kind = line.split()
        yield JournalEntry(
            what, int(at) / 1e9, int(pid), int(thread), int(fence), user, int(seq), int(attempt), request, kind
        )
