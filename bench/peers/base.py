"""How every peer is driven: two worker processes of eight threads, a control process that enqueues, a trace."""

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.place import LOGS, OWN, Place, wait_for
from bench.trace import FOLDER, Trace
from scripts.place import ROOT
from scripts.servers.process import Process, birth

PROCESSES, THREADS = 2, 8
Job = dict[str, Any]


class Unavailable(Exception):
    """The peer cannot run on this machine; says why."""


@dataclass
class Peer:
    """A stack that runs jobs. `order` and `record` say what it promises; `None` is nothing."""

    name: str
    order: str | None
    record: str | None
    worker: list[str]
    control: list[str]
    variables: dict[str, str] = field(default_factory=dict)
    per_user: bool = False  # its workers have to know how many users there are
    prepare: Callable[[Place], dict[str, str]] | None = None  # starts what else it needs; gives more variables
    processes: int = PROCESSES
    limit: float = 60.0  # seconds that anything may take

    def __post_init__(self) -> None:
        self.workers: list[Process] = []
        self.talk: Process | None = None
        self.users = 0
        self.trace = Trace(OWN / "trace" / re.sub(r"\W+", "-", self.name.lower()))

    @property
    def running(self) -> bool:
        return bool(self.workers)

    def start(self, here: Place, users: int) -> None:
        """Start its processes and wait until they have worked. Raises Unavailable, TimeoutError."""
        self.here, self.users = here, users
        self.trace.clear()
        for old in self.trace.folder.glob("*.trace"):
            old.unlink()
        self.all_variables = {**self.variables, FOLDER: str(self.trace.folder), "BENCH_USERS": str(users)}
        if self.prepare:
            self.all_variables |= self.prepare(here)
        self._start_control()
        self.clear()
        for number in range(self.processes):
            self.start_worker(number)
        self._warm_up()

    def start_worker(self, number: int) -> Process:
        """One worker process, the `number`-th."""
        variables = {**self.all_variables, "BENCH_NUMBER": str(number), "BENCH_PROCESSES": str(self.processes)}
        command = [part.replace("{number}", str(number)) for part in self.worker]
        process = self.here.start(f"{self.trace.folder.name}-worker-{number}", command, **variables)
        self.workers.append(process)
        return process

    def _warm_up(self) -> None:
        """Give them work until each process has done some: one that still starts would be measured starting."""
        jobs = [{"user": n % min(self.users, 16), "n": n, "ms": 1, "fail": False} for n in range(100)]
        asked, began = 0, time.monotonic()

        def worked() -> bool:
            if not all(worker.alive() for worker in self.workers):
                raise RuntimeError(f"a worker ended; see {self.trace.folder.name}-worker-*.log in .local/bench")
            return self.trace.count() >= asked

        while self.trace.writers() < self.processes and time.monotonic() - began < self.limit:
            self.add([{**job, "n": job["n"] + asked} for job in jobs])
            asked += len(jobs)
            wait_for(worked, "warm workers", self.limit, every=0.02)
        self.settled(asked, "warm workers")
        self.clear()

    def settled(self, jobs: int, what: str) -> None:
        """Wait until its own records, where it keeps any, say that so many have finished."""
        if self.record:
            wait_for(lambda: (self.outcomes() or 0) >= jobs, f"the records of {what}", self.limit, 0.02)

    def add(self, jobs: Sequence[Job]) -> float:
        """Enqueue them in this order; the moment it began, on the monotonic clock."""
        moment: float = self._ask("add", list(jobs))
        return moment

    def brought(self) -> None:
        """Wait until what was enqueued is where workers take it from; it is, unless a peer says otherwise."""

    def outcomes(self) -> int | None:
        """How many jobs its own records call finished; None where it keeps none."""
        counted: int | None = self._ask("outcomes")
        return counted

    def clear(self) -> None:
        """Forget all jobs; none may be under way."""
        self._ask("clear")
        self.trace.clear()

    def pause(self) -> None:
        for worker in self.workers:
            worker.pause()

    def resume(self) -> None:
        for worker in self.workers:
            worker.resume()

    def stop(self) -> None:
        """End all of its processes; in vain when none runs."""
        for process in [*self.workers, *([self.talk] if self.talk else [])]:
            if process in self.here.started:
                self.here.stop(process)
        self.workers, self.talk = [], None

    def _start_control(self) -> None:
        """It ends with the pipe that we hold, however we end."""
        LOGS.mkdir(parents=True, exist_ok=True)
        with self._log().open("wb") as log:
            child = subprocess.Popen(
                self.control,
                env={**self.here.variables, **self.all_variables},
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
        self.talk = Process(child.pid, birth(child.pid), child=child)
        self.here.started.append(self.talk)

    def _log(self) -> Path:
        return LOGS / f"{self.trace.folder.name}-control.log"

    def _ask(self, verb: str, jobs: list[Job] | None = None) -> Any:
        """One line there, one line back: {"ok": value} or {"error": text}."""
        assert self.talk
        child = self.talk.child
        assert child
        assert child.stdin
        assert child.stdout
        child.stdin.write(json.dumps([verb, jobs or []]).encode() + b"\n")
        child.stdin.flush()
        while line := child.stdout.readline():
            if line.startswith(b"{"):
                answer = json.loads(line)
                if "error" in answer:
                    raise RuntimeError(f"{verb}: {answer['error']}")
                return answer["ok"]
        raise RuntimeError(f"its control process ended; see {self._log().name} in .local/bench")


def module(name: str) -> list[str]:
    """A control process that is this peer's own module."""
    return [sys.executable, "-m", f"bench.peers.{name}"]
