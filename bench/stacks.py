"""Whole stacks behind HTTP, from the submission to the job's end: this project, and what its peers are built into."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

from accounts.models import Session, User
from bench.handlers import KIND
from bench.load import post
from bench.loads.accept import SECRET, listening, rival_tokens
from bench.peers import make
from bench.peers.base import Peer, Unavailable
from bench.peers.node import script
from bench.place import OWN, Place, wait_for
from bench.report import Report
from bench.trace import FOLDER, Trace
from bench.users import users, waiting
from scripts.place import free_port
from scripts.servers.process import Process


@dataclass
class Stack:
    """One of them as it runs: its port, its users' tokens, and the trace of its workers."""

    name: str
    path: str
    trace: Trace
    here: Place
    peer: Peer | None = None
    port: int = 0
    tokens: list[str] = field(default_factory=list)
    process: Process | None = None

    def request(self, user: int, n: int) -> bytes:
        """The `n`-th submission of a user as it goes over the wire."""
        body = {"kind": KIND, "payload": {"user": user, "n": n, "ms": 0, "fail": False}}
        return post(self.path, self.tokens[user], json.dumps(body).encode())

    def start(self, count: int) -> None:
        """Start its processes for so many users, and wait until it listens."""
        self.port = free_port()
        if self.peer is None:
            self._start_ours(count)
        else:
            self.peer.start(self.here, count)
            self._start_front(self.peer)
        listening(self.port, self.path)
        self.trace.clear()

    def _start_ours(self, count: int) -> None:
        self.trace.clear()
        self.here.empty()
        command = [sys.executable, "-m", "bench.stack", str(self.port)]
        self.process = self.here.start("stack", command, **{FOLDER: str(self.trace.folder)})
        if len(self.tokens) != count:
            of = User.objects.filter(id__in=users(self.here, "bench", count)).order_by("id")
            self.tokens = [Session.open(user).access for user in of]

    def _start_front(self, peer: Peer) -> None:
        variables = {"BENCH_SECRET": SECRET, **peer.all_variables}
        if peer.name.startswith("Celery"):
            command = [sys.executable, "-m", "uvicorn", "bench.peers.fastapi_celery:app", "--port", str(self.port)]
            command += ["--workers", "2", "--no-access-log", "--log-level", "warning"]
        else:
            command = script("express_bullmq")
            variables |= {"PORT": str(self.port), "WORKERS": "2", "NODE_ENV": "production"}
        self.process = self.here.start("front", command, **variables)
        self.tokens = rival_tokens(peer.users)

    def quiet(self, jobs: int, seconds: float) -> None:
        """Wait until so many runs have ended, and their outcomes are recorded. Raises TimeoutError."""
        wait_for(lambda: self.trace.count() >= jobs, f"{self.name}: {jobs:,} jobs", seconds)
        if self.peer is None:
            wait_for(lambda: waiting(self.here) == 0, f"{self.name}: their outcomes", seconds)

    def forget(self) -> None:
        """Forget what was done; nothing may be under way."""
        if self.peer is None:
            self.here.empty()
        self.trace.clear()

    def stop(self) -> None:
        if self.process in self.here.started:
            self.here.stop(self.process)
        if self.peer is not None:
            self.peer.stop()


def stacks(here: Place, report: Report, peers: Sequence[str]) -> list[Stack]:
    """This project first; then those that are installed. The others are named."""
    found = [Stack("this project", "/api/v1/requests", Trace(OWN / "trace" / "stack"), here)]
    for name, title in (
        ("celery", "FastAPI + Celery + results in PostgreSQL"),
        ("bullmq-two", "Express + BullMQ, a queue a user"),
    ):
        if name not in peers:
            continue
        try:
            peer = make(name)
        except (Unavailable, ImportError) as why:
            report.note(f"{title} is left out: {why}")
            continue
        found.append(Stack(title, "/requests", peer.trace, here, peer))
    return found
