"""manage.py deliver_webhooks: send what became of requests to the addresses that their users named."""

import threading
import time
from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from processing.webhooks.delivery.deliverer import Deliverer
from processing.worker.process import stop_on_signals
from project.postgresql.limits import play
from project.telemetry import health
from project.telemetry.metrics import exposition
from project.telemetry.probe_server import PortUnusable, Probes

STUCK_SECONDS = 60.0
NEEDED = ("postgresql", "migrations")


class Command(BaseCommand):
    help = "Deliver webhooks: in order for each, many side by side. Any number may run."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--threads",
            type=int,
            default=settings.ENV.webhook_threads,
            help="Receivers that are sent to side by side. Default: WEBHOOK_THREADS.",
        )
        parser.add_argument(
            "--health-port",
            type=int,
            default=settings.ENV.health_port,
            help="Port for /health/live, /health/ready and /metrics; 0: none. Default: HEALTH_PORT.",
        )

    def handle(self, *args: Any, threads: int, health_port: int, **options: Any) -> None:
        if threads < 2:
            raise CommandError("--threads is at least 2: one is left to quick receivers.")
        play("dispatcher")
        stop = threading.Event()
        stop_on_signals(stop)
        deliverer = Deliverer(threads)

        def live() -> dict[str, str]:
            return {"webhooks": "ok" if time.monotonic() - deliverer.looked < STUCK_SECONDS else "stuck"}

        def ready() -> dict[str, str]:
            found = health.checks()
            return {name: found[name] for name in NEEDED} | live()

        if health_port:
            try:
                Probes(settings.ENV.health_host, health_port, live, ready, exposition).start()
            except PortUnusable as wrong:
                raise CommandError(f"--health-port {health_port}: {wrong}") from None
        deliverer.run(stop)
