"""manage.py ingest_kafka: make requests of Kafka's messages."""

import time
from argparse import ArgumentParser
from importlib.util import find_spec
from typing import Any

from django.conf import settings
from django.core.management.base import CommandError

from processing.management.service import ServiceCommand, stopped_by_signals
from project.environment import named
from project.postgresql.limits import play
from project.telemetry import health
from queues.management.command_base import positive

STUCK_SECONDS = 60.0
NEEDED = ("postgresql", "migrations")
MISSING = (
    "confluent-kafka is not installed: pip install --require-hashes --no-deps -r processing/kafka/requirements.txt"
)


class Command(ServiceCommand):
    help = "Make requests of the messages of KAFKA_TOPICS. Any number may run; they share the partitions."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--create-topics",
            type=positive,
            metavar="PARTITIONS",
            help="Make the topics that are not there, with so many partitions each.",
        )
        super().add_arguments(parser)

    def handle(self, *args: Any, create_topics: int | None, health_port: int, **options: Any) -> None:
        if find_spec("confluent_kafka") is None:
            raise CommandError(MISSING)
        if not settings.ENV.kafka_brokers:
            raise CommandError("KAFKA_BROKERS is not set. Set it to where Kafka is: KAFKA_BROKERS=kafka:9092")
        from confluent_kafka import KafkaException

        from processing.kafka.ingester import Ingester
        from processing.kafka.topics import create

        play("dispatcher")
        stop = stopped_by_signals()
        topics = named(settings.ENV.kafka_topics)
        try:
            if create_topics:
                create(topics, create_topics)
            ingester = Ingester(topics)
        except KafkaException as failure:
            raise CommandError(f"Kafka: {failure.args[0].str()}. Look at KAFKA_BROKERS and KAFKA_CONFIG.") from None

        def live() -> dict[str, str]:
            return {"ingest": "ok" if time.monotonic() - ingester.looked < STUCK_SECONDS else "stuck"}

        def ready() -> dict[str, str]:
            found = health.checks()
            kafka = {"kafka": "ok" if ingester.reachable else "down"}
            return {name: found[name] for name in NEEDED} | kafka | live()

        self.serve_probes(health_port, live, ready)
        ingester.run(stop)
