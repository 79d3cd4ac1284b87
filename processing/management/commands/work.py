"""manage.py work: run users' requests."""

import os
import sys
import threading
from argparse import SUPPRESS, ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError


class Command(BaseCommand):
    help = "Run users' requests, one at a time and in order for each user, many users side by side."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--processes", type=int, default=2, help="Processes; one that dies is started again.")
        parser.add_argument("--threads", type=int, default=8, help="Users that one process serves side by side.")
        parser.add_argument("--child", action="store_true", help=SUPPRESS)

    def handle(self, *args: Any, processes: int, threads: int, child: bool, **options: Any) -> None:
        if processes < 1 or threads < 1:
            raise CommandError("--processes and --threads are at least 1.")
        stop = threading.Event()
        if child:
            # Dramatiq reads these when it is imported: no token waits behind a busy thread, a lost broker is soon
            # found again.
            os.environ["dramatiq_queue_prefetch"] = str(threads)
            os.environ.setdefault("dramatiq_restart_delay", "1000")
            from processing.worker import run, stop_on_signals

            stop_on_signals(stop)
            run(threads, stop)
        else:
            from processing.supervisor import supervise
            from processing.worker import stop_on_signals

            stop_on_signals(stop)
            supervise([[sys.argv[0], "work", "--child", "--threads", str(threads)]] * processes, stop)
