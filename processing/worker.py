"""A worker process: Dramatiq's threads around the drain, and the watch beside them."""

import os
import signal
import threading
from pathlib import Path

import structlog
from django.conf import settings
from dramatiq import Worker

from processing import actors, drain, metrics
from processing.beat import Beat
from processing.broker import broker
from project.sharing import VARIABLE
from queues.finishing import watched
from queues.metrics import begin_at_zero

log = structlog.get_logger()


def run(threads: int, stop: threading.Event) -> None:
    """Work until `stop` is set; then take no new turn, let running handlers finish, and give the rest back."""
    watched.listen()
    shared = os.environ.get(VARIABLE)
    drain.watch.start(stop, Beat(Path(shared)) if shared else None)
    begin_at_zero()
    metrics.THREADS.set(threads)
    worker = Worker(broker, worker_threads=threads, worker_timeout=200)
    worker.start()
    log.info("working", actor=actors.drain.actor_name, threads=threads, holder=drain.watch.holder)
    stop.wait()
    log.info("stopping", grace_seconds=settings.ENV.stop_grace_seconds)
    if drain.watch.stop(settings.ENV.stop_grace_seconds):
        worker.stop(timeout=2000)
    log.info("stopped")
    os._exit(0)  # at once: a handler that outlived its grace must not go on beside the next worker of its queue


def stop_on_signals(stop: threading.Event) -> None:
    """Set `stop` on SIGTERM and SIGINT."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
