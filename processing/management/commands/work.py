"""manage.py work: run users' requests."""

import os
import shutil
import sys
from argparse import SUPPRESS, ArgumentParser
from functools import partial
from typing import Any

from django.core.management.base import CommandError

from processing.management.service import ServiceCommand, stopped_by_signals
from project.postgresql.limits import play


class Command(ServiceCommand):
    help = "Run users' requests, one at a time and in order for each user, many users side by side."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--processes", type=int, default=2, help="Processes; one that dies is started again.")
        parser.add_argument("--threads", type=int, default=8, help="Users that one process serves side by side.")
        super().add_arguments(parser)
        parser.add_argument("--child", action="store_true", help=SUPPRESS)
        parser.add_argument("--alone", type=int, nargs=3, help=SUPPRESS)  # a queue, the fence it is left with, by whom

    def handle(
        self,
        *args: Any,
        processes: int,
        threads: int,
        health_port: int,
        child: bool,
        alone: list[int] | None,
        **options: Any,
    ) -> None:
        if processes < 1 or threads < 1:
            raise CommandError("--processes and --threads are at least 1.")
        play("worker")
        if alone is not None:
            self.run_alone(*alone)
        elif child:
            self.run_child(threads)
        else:
            self.run_supervisor(processes, threads, health_port)

    def run_child(self, threads: int) -> None:
        stop = stopped_by_signals()
        # Dramatiq reads this when it is imported: a lost broker is soon found again.
        os.environ.setdefault("dramatiq_restart_delay", "1000")
        from processing.worker.process import run

        run(threads, stop)

    def run_alone(self, queue_id: int, fence: int, parent: int) -> None:
        from processing.worker.process import run_alone

        run_alone(queue_id, fence, parent, stopped_by_signals())

    def run_supervisor(self, processes: int, threads: int, health_port: int) -> None:
        """The processes count, and give their signs of life, in files that they share with this one."""
        from processing.operations.sessions import refuse_borrowed_sessions
        from processing.worker.heartbeat import Heartbeat
        from processing.worker.probes import WorkersProbes
        from processing.worker.supervisor import Supervisor
        from project.telemetry.metrics import Counted, render
        from project.telemetry.multiprocess import VARIABLE, directory_of

        refuse_borrowed_sessions()
        directory = directory_of("worker", os.getpid())
        if directory is None and health_port:
            raise CommandError("--health-port needs a temporary directory that can be written; set TMPDIR to one.")
        stop = stopped_by_signals()
        commands = [[sys.argv[0], "work", "--child", "--threads", str(threads), "--skip-checks"]] * processes
        if directory is None:
            Supervisor(commands, {}).run(stop)
            return
        shared = directory
        supervisor = Supervisor(commands, {VARIABLE: str(shared)}, lambda pid: Heartbeat(shared, pid).forget())
        try:
            probes = WorkersProbes(supervisor, shared)
            counts = partial(render, [supervisor, Counted(shared)])
            self.serve_probes(health_port, probes.live, probes.ready, counts)
            supervisor.run(stop)
        finally:
            shutil.rmtree(shared, ignore_errors=True)
