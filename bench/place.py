"""Where a benchmark runs: a database, a virtual host and a Redis number of its own, and real processes in them."""

import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from scripts.place import LOCAL, ROOT
from scripts.run.application import environment
from scripts.servers.borrowing import borrowed
from scripts.servers.process import Process, launch

LOGS = LOCAL / "bench"
OWN = LOGS / f"run-{os.getpid()}"  # traces and private servers' files: removed when this process is done

# Limits that protect a service would only measure themselves.
UNLIMITED = {
    "WAITING_LIMIT": "1000000",
    "SUBMISSIONS_PER_MINUTE": "100000000",
    "LOGINS_PER_MINUTE": "100000",
    "REGISTRATIONS_PER_MINUTE": "100000",
}


class Place:
    """The servers' addresses, and who was started there. Everything ends with the block that made it."""

    def __init__(self, variables: dict[str, str]) -> None:
        self.variables = variables
        self.peers: list[str] = []  # those that were asked for
        self.prefix = ""  # of the files of what the processes print
        self.started: list[Process] = []
        self.servers: dict[str, tuple[Process, int]] = {}  # private ones that peers started, with their ports
        self.sql = psycopg.connect(variables["DATABASE_URL"], autocommit=True)

    def start(self, name: str, command: list[str], **more: str) -> Process:
        """Start a process; what it prints is kept in .local/bench/<prefix><name>.log."""
        LOGS.mkdir(parents=True, exist_ok=True)
        with (LOGS / f"{self.prefix}{name}.log").open("wb") as log:
            process = launch(command, environment={**self.variables, **more}, output=log, folder=ROOT)
        self.started.append(process)
        return process

    def manage(self, name: str, *arguments: str, **more: str) -> Process:
        """Start `manage.py` with these arguments."""
        return self.start(name, [sys.executable, str(ROOT / "manage.py"), *arguments], **more)

    def stop(self, *processes: Process) -> None:
        """Stop these, or all that still run."""
        for process in processes or tuple(self.started):
            process.stop(grace=10)
            self.started.remove(process)

    def one(self, query: str, *values: object) -> object:
        """The only value of a query's only row."""
        row = self.sql.execute(query, values or None).fetchone()
        return row[0] if row else None

    def empty(self) -> None:
        """Forget all requests, those that nobody has run, too. Queues stay, idle, with their counters."""
        self.sql.execute("TRUNCATE queues_request, queues_attempt")
        self.sql.execute(
            "UPDATE queues_userqueue SET published_seq = last_seq, done_seq = last_seq, state = 'idle', wake_at = NULL"
            " WHERE active OR unpublished"
        )
        self.sql.execute("VACUUM ANALYZE queues_userqueue")


@contextmanager
def place() -> Iterator[Place]:
    """A place with an up-to-date database, and Django set up in this process. Afterwards nothing of it is left."""
    with borrowed("bench", keep_servers=False) as servers:
        variables = {**environment(servers), **UNLIMITED, "LOG_FORMAT": "json"}  # as in production
        variables["EXTRA_APPS"] = "bench"  # handlers.py
        os.environ.update({**variables, "LOG_LEVEL": "WARNING"})  # what is logged here would bury the figures
        import django
        from django.core.management import call_command
        from django.db import connection

        django.setup()
        call_command("migrate", verbosity=0, interactive=False)
        here = Place(variables)
        try:
            yield here
        finally:
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)  # whoever is impatient now would leave something behind
            here.stop()
            here.sql.close()
            connection.close()
            shutil.rmtree(OWN, ignore_errors=True)


def wait_for(holds: Callable[[], object], what: str, seconds: float = 60, every: float = 0.01) -> float:
    """Wait until `holds()`; the seconds it took. Raises TimeoutError saying `what` did not come about."""
    began = time.perf_counter()
    while not holds():
        if time.perf_counter() - began > seconds:
            raise TimeoutError(f"{what}: not within {seconds:g} s. The processes' words are in {relative(LOGS)}.")
        time.sleep(every)
    return time.perf_counter() - began


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))
