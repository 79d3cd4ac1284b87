"""A worker process: Dramatiq's threads around the drain, the watch beside them, and the graceful end of both."""

import gc
import os
import threading
from pathlib import Path

import structlog
from django.conf import settings

from processing import actors, metrics
from processing.broker.threads import LOOK_SECONDS, Threads
from processing.broker.token_sender import pass_on_later
from processing.worker import drain
from processing.worker.coroutines.run import CoroutineRun
from processing.worker.heartbeat import Heartbeat
from processing.worker.isolation import LAST_WORDS_SECONDS, Isolation
from processing.worker.supervisor import die_with_parent
from project.telemetry import tracing
from project.telemetry.multiprocess import VARIABLE
from queues.metrics import begin_at_zero
from queues.notify.changes import watched
from queues.notify.workers import keep_shown
from queues.throughput import tally

log = structlog.get_logger()


def run(threads: int, stop: threading.Event) -> None:
    """Work until `stop` is set; then take no new turn, let running handlers finish, and give the rest back."""
    watched.listen()
    shared = os.environ.get(VARIABLE)
    drain.watch.start(stop, Heartbeat(Path(shared)) if shared else None, pass_on_later)
    keep_shown(drain.watch.worker_id)
    if threads > 1:  # with one thread nothing runs beside what may crash
        drain.isolation = Isolation(drain.watch)
        drain.coroutines = CoroutineRun(drain.watch)
    begin_at_zero()
    worker = Threads(
        threads,
        settings.ENV.worker_threads_max if threads > 1 else 1,
        may_take=lambda: drain.watch.takes_turns,
        crowded=drain.shares.crowded,
        resized=resized,
        release=drain.release,
    )
    gc.freeze()  # what was imported is never garbage: the collector need not look through it again and again
    worker.start()
    log.info("working", actor=actors.drain.actor_name, threads=threads, worker_id=drain.watch.worker_id)
    while not stop.wait(LOOK_SECONDS):
        worker.fit()
    log.info("stopping", grace_seconds=settings.ENV.stop_grace_seconds)
    if drain.watch.stop(settings.ENV.stop_grace_seconds):
        worker.stop(timeout=2000)
        hand_in()
    log.info("stopped")
    os._exit(0)  # at once: a handler that outlived its grace must not go on beside the next worker of its queue


def resized(threads: int) -> None:
    """So many there are from now on."""
    drain.shares.set_threads(threads)
    metrics.THREADS.set(threads)


def hand_in() -> None:
    """What this process has counted and traced; `os._exit` calls nothing that waits for the end (atexit)."""
    tally.flush()
    tracing.flush()


def run_alone(queue_id: int, fence: int, parent: int, stop: threading.Event) -> None:
    """Run one request of the queue that the lease `fence` leaves to this process, then end; or when `stop` is set."""
    die_with_parent()
    if os.getppid() != parent:
        return  # it died before it could be told of
    watched.listen()
    drain.watch.start(stop, send_tokens=pass_on_later)
    keep_shown(drain.watch.worker_id)

    def work() -> None:
        try:
            drain.drain_queue(queue_id, left=fence)
        finally:
            stop.set()

    thread = threading.Thread(target=work, name="alone", daemon=True)
    thread.start()
    stop.wait()
    if drain.watch.stop(max(0.0, settings.ENV.stop_grace_seconds - LAST_WORDS_SECONDS)):
        thread.join(timeout=2)  # it may still send its token
        hand_in()
    os._exit(0)
