"""manage.py dispatch: bring accepted requests to RabbitMQ, as the leader of each shard that has none."""

import threading
from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from processing.dispatcher import Dispatcher
from processing.worker import stop_on_signals
from queues.outbox import Shard


class Command(BaseCommand):
    help = "Publish accepted requests in order, wake queues, repair. Run two: one leads, the other stands by."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--shards",
            type=int,
            default=settings.ENV.dispatch_shards,
            help="Parts the users are split into; the same for all dispatchers. Default: DISPATCH_SHARDS.",
        )

    def handle(self, *args: Any, shards: int, **options: Any) -> None:
        if shards < 1:
            raise CommandError("--shards is at least 1.")
        stop = threading.Event()
        stop_on_signals(stop)
        threads = [
            threading.Thread(target=Dispatcher(Shard(number, shards)).run, args=(stop,), name=f"shard {number}")
            for number in range(shards)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
