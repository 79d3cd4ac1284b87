"""Whether a service of workers lives and is of use: what its health endpoint answers."""

import time
from pathlib import Path

from processing.health import STUCK_SECONDS, servers
from processing.worker.heartbeat import Heartbeat
from processing.worker.supervisor import Supervisor


class WorkersProbes:
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
        age = Heartbeat(self.directory, pid).age()
        silent = time.monotonic() - started if age is None else age
        return "ok" if silent < STUCK_SECONDS else "stuck"

    def ready(self) -> dict[str, str]:
        working = any(
            Heartbeat(self.directory, pid).known() and self._process(pid, started) == "ok"
            for pid, started in self.supervisor.running()
        )
        return servers() | {"workers": "ok" if working else "none works yet"}
