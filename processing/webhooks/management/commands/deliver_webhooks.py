"""manage.py deliver_webhooks: send what became of requests to the addresses that their users named."""

import time
from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import CommandError

from processing.management.service import ServiceCommand, stopped_by_signals
from processing.webhooks.delivery.deliverer import Deliverer
from project.postgresql.limits import play
from project.telemetry import health

STUCK_SECONDS = 60.0
NEEDED = ("postgresql", "migrations")


class Command(ServiceCommand):
    help = "Deliver webhooks: in order for each, many side by side. Any number may run."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--threads",
            type=int,
            default=settings.ENV.webhook_threads,
            help="Receivers that are sent to side by side. Default: WEBHOOK_THREADS.",
        )
        super().add_arguments(parser)

    def handle(self, *args: Any, threads: int, health_port: int, **options: Any) -> None:
        if threads < 2:
            raise CommandError("--threads is at least 2: one is left to quick receivers.")
        play("dispatcher")
        stop = stopped_by_signals()
        deliverer = Deliverer(threads)

        def live() -> dict[str, str]:
            return {"webhooks": "ok" if time.monotonic() - deliverer.looked < STUCK_SECONDS else "stuck"}

        def ready() -> dict[str, str]:
            found = health.checks()
            return {name: found[name] for name in NEEDED} | live()

        self.serve_probes(health_port, live, ready)
        deliverer.run(stop)
