"""What the threads of a worker process share, and what each does with a token."""

import threading
from collections.abc import Iterable

from django.db import connections

from processing.broker.fetcher import Fetcher
from processing.worker.coroutines.run import CoroutineRun
from processing.worker.isolation import Isolation
from processing.worker.shares import Shares
from processing.worker.token_run import TokenRun, WorkerProcess
from processing.worker.watchdog import Watchdog

watch = Watchdog()
shares = Shares()
isolation: Isolation | None = None  # set where one process runs many users' requests
coroutines: CoroutineRun | None = None  # the same
_thread = threading.local()


def drain_queues(queue_ids: Iterable[int]) -> None:
    """Run a turn of each that is ready."""
    TokenRun(WorkerProcess(watch, shares, isolation, coroutines), fetcher(), queue_ids).drain()


def drain_queue(queue_id: int, left: int | None = None) -> None:
    """Run a turn, or one request if the queue is `left` to this process by the lease of that fence."""
    TokenRun(WorkerProcess(watch, shares, isolation, coroutines), fetcher(), [queue_id], left).drain()


def fetcher() -> Fetcher:
    """This thread's connection to RabbitMQ."""
    if not hasattr(_thread, "fetcher"):
        _thread.fetcher = Fetcher()
    mine: Fetcher = _thread.fetcher
    return mine


def release() -> None:
    """This thread takes no token any more: close its connections."""
    connections.close_all()
    if hasattr(_thread, "fetcher"):
        _thread.fetcher.close()
