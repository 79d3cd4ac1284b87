"""Worker processes and dispatchers of a test's own."""

import os
import subprocess
import sys
from pathlib import Path

from django.db import connection

from tests.waiting import until
from tests.watched import watched

RUN = Path(__file__).parent / "run.py"
GRACE_SECONDS = 3.0  # of which a process of its own has 1
QUICK = {"TURN_SECONDS": "0.1", "STOP_GRACE_SECONDS": str(GRACE_SECONDS)}
START_SECONDS = 90  # two cores, shared with whatever else runs there


class Service:
    """Two worker processes, always; and dispatchers as the test wants them."""

    def __init__(self, folder: Path) -> None:
        self.output = folder / "output"
        self.processes: list[subprocess.Popen[bytes]] = []
        self.dispatchers: list[subprocess.Popen[bytes]] = []
        self.start("work", "--processes", "2", "--threads", "2")

    def start(self, *arguments: str, name: str = "") -> subprocess.Popen[bytes]:
        """Start it; `name` is what PostgreSQL calls its connections."""
        with self.output.open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, str(RUN), *arguments],
                env=os.environ | watched() | {"PGAPPNAME": name, **QUICK},
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self.processes.append(process)
        return process

    def dispatch(self) -> subprocess.Popen[bytes]:
        """A dispatcher that leads, or stands by if there is one already."""
        name = f"dispatcher {len(self.processes)}"
        self.dispatchers.append(self.start("dispatch", name=name))
        until(lambda: self.connected(name), START_SECONDS, "the dispatcher did not start")
        return self.dispatchers[-1]

    def lead(self) -> None:
        """One dispatcher that leads, at the least."""
        if not self.dispatchers:
            self.dispatch()

    def leaderless(self) -> None:
        """No dispatcher at all."""
        for process in self.dispatchers:
            process.kill()
            process.wait(20)
        self.dispatchers.clear()
        until(lambda: self.connected("dispatcher") == 0, 20)

    @staticmethod
    def connected(name: str) -> int:
        """Connections to PostgreSQL of those whose name begins so: who has one has looked who leads."""
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query <> ''"
                " AND starts_with(application_name, %s)",
                [name],
            )
            (count,) = cursor.fetchone()
        return int(count)

    def stop(self) -> None:
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            process.wait(40)
