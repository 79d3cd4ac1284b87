"""Commands that run until they are stopped: graceful shutdown at SIGTERM or SIGINT, a port for liveness probes."""

import signal
import threading
from argparse import ArgumentParser
from collections.abc import Callable

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from project.telemetry.metrics import exposition
from project.telemetry.probe_server import Checks, PortUnusable, Probes


class ServiceCommand(BaseCommand):
    """Has --health-port. Its `handle` takes that, and gives it to `serve_probes`."""

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--health-port",
            type=int,
            default=settings.ENV.health_port,
            help="Port for /health/live, /health/ready and /metrics; 0: none. Default: HEALTH_PORT.",
        )

    def serve_probes(
        self, port: int, live: Checks, ready: Checks, metrics: Callable[[], bytes] = exposition
    ) -> Probes | None:
        """Answer there from now on; with port 0 nobody answers. Raises CommandError."""
        if not port:
            return None
        try:
            return Probes(settings.ENV.health_host, port, live, ready, metrics).start()
        except PortUnusable as wrong:
            raise CommandError(f"--health-port {port}: {wrong}") from None


def stopped_by_signals() -> threading.Event:
    """An event that SIGTERM and SIGINT set."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    return stop
