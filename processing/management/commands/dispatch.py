"""manage.py dispatch: bring accepted requests to RabbitMQ, as the leader of each shard that has none."""

import threading
from argparse import ArgumentParser
from typing import Any

import structlog
from django.conf import settings
from django.core.management.base import CommandError

from processing.dispatch.chores import chores
from processing.dispatch.dispatcher import Dispatcher
from processing.dispatch.probes import DispatcherProbes
from processing.management.service import ServiceCommand, stopped_by_signals
from processing.operations.sessions import refuse_borrowed_sessions
from project.postgresql.limits import play
from queues.lifecycle.outbox import Shard

log = structlog.get_logger()


class Command(ServiceCommand):
    help = "Publish accepted requests in order, wake queues, repair. Run two: one leads, the other stands by."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--shards",
            type=int,
            default=settings.ENV.dispatch_shards,
            help="Parts the users are split into; the same for all dispatchers. Default: DISPATCH_SHARDS.",
        )
        super().add_arguments(parser)

    def handle(self, *args: Any, shards: int, health_port: int, **options: Any) -> None:
        if shards < 1:
            raise CommandError("--shards is at least 1.")
        play("dispatcher")
        refuse_borrowed_sessions()
        stop = stopped_by_signals()
        dispatchers = [Dispatcher(Shard(number, shards)) for number in range(shards)]
        defects: list[Exception] = []
        threads = [
            threading.Thread(target=lead, args=(d, stop, defects), name=f"shard {d.shard.number}") for d in dispatchers
        ]
        probes = DispatcherProbes(list(zip(dispatchers, threads, strict=True)))
        self.serve_probes(health_port, probes.live, probes.ready)
        for thread in threads:
            thread.start()
        for chore in chores():
            chore.start(stop)
        for thread in threads:
            thread.join()
        if defects:
            raise CommandError("A dispatcher ended with a defect; the log has its traceback.", returncode=1)


def lead(dispatcher: Dispatcher, stop: threading.Event, defects: list[Exception]) -> None:
    """Run one shard's dispatcher. What it does not expect ends the process: whoever supervises it starts another."""
    try:
        dispatcher.run(stop)
    except Exception as error:
        log.exception("the dispatcher has a defect; the process ends", shard=dispatcher.shard.number)
        defects.append(error)
    finally:
        stop.set()
