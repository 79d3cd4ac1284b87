"""Whether a dispatcher or a service of workers lives and is of use: what its health endpoint answers.

Live says whether a restart would help: a server that is away is none of its business. Ready says whether it works now.
"""

import threading
import time
from collections.abc import Sequence
from pathlib import Path

from processing.dispatch.dispatcher import Dispatcher
from processing.worker.heartbeat import Beat
from processing.worker.supervisor import Supervisor
from project.telemetry import health

STUCK_SECONDS = 60.0  # longer than any wait for a server, and than a process takes to start
NEEDED = ("postgresql", "migrations", "rabbitmq")


def servers() -> dict[str, str]:
    """The checks of what neither can do without."""
    found = health.checks()
    return {name: found[name] for name in NEEDED}


class DispatcherVitality:
    """Of one dispatcher process, which has a thread for each shard. One that stands by is ready."""

    def __init__(self, shards: Sequence[tuple[Dispatcher, threading.Thread]]) -> None:
        self.shards = shards

    def live(self) -> dict[str, str]:
        return {f"shard {dispatcher.shard.number}": self._shard(dispatcher, t) for dispatcher, t in self.shards}

    def _shard(self, dispatcher: Dispatcher, thread: threading.Thread) -> str:
        if not thread.is_alive():
            return "its thread ended"
        looked = min(dispatcher.looked, dispatcher.sweeper.looked)
        return "ok" if time.monotonic() - looked < STUCK_SECONDS else "stuck"

    def ready(self) -> dict[str, str]:
        return servers() | self.live()


class WorkersVitality:
    """Of one service of workers: the supervisor and its processes, each of which gives a sign of life."""

    def __init__(self, supervisor: Supervisor, directory: Path) -> None:
        self.supervisor = supervisor
        self.directory = directory

    def live(self) -> dict[str, str]:
        looks = time.monotonic() - self.supervisor.looked < STUCK_SECONDS
        found = {"supervisor": "ok" if looks else "stuck"}
        for pid, started in self.supervisor.running():
            found[f"process {pid}"] = self._process(pid, started)
        return found

    def _process(self, pid: int, started: float) -> str:
        age = Beat(self.directory, pid).age()
        silent = time.monotonic() - started if age is None else age
        return "ok" if silent < STUCK_SECONDS else "stuck"

    def ready(self) -> dict[str, str]:
        working = any(
            Beat(self.directory, pid).known() and self._process(pid, started) == "ok"
            for pid, started in self.supervisor.running()
        )
        return servers() | {"workers": "ok" if working else "none works yet"}
