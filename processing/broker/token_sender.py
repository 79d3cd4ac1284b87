"""The tokens that a worker sends: for what is to go on after others, or in another process."""

import threading
from collections.abc import Callable, Sequence
from queue import SimpleQueue

import structlog

from processing import metrics
from processing.broker import tokens
from processing.broker.errors import BrokerUnavailable
from processing.broker.rabbitmq import TokenSender

log = structlog.get_logger()

TOKENS_SENT = metrics.TOKENS_SENT.labels("worker")
MOST_THREADS = 8  # a job may wait for RabbitMQ for seconds, and the next one is about other users' queues
thread = threading.local()


def send(*queue_ids: int) -> None:
    """Have somebody drain these queues, after those who wait already. Raises BrokerUnavailable."""
    if not hasattr(thread, "tokens"):
        thread.tokens = TokenSender()
    thread.tokens.send(tokens.token_queue(), tokens.token(*queue_ids), tokens.TOKEN_PROPERTIES)
    TOKENS_SENT.inc()


def pass_on(queue_ids: Sequence[int], together: int = 1) -> None:
    """Have workers drain these queues, so many with each token. One that is lost is sent again by the sweep."""
    try:
        for at in range(0, len(queue_ids), together):
            send(*queue_ids[at : at + together])
    except BrokerUnavailable as error:
        log.warning("tokens could not be passed on", error=str(error))


def pass_on_later(queue_ids: Sequence[int]) -> None:
    """The same, without waiting for RabbitMQ."""
    _later.put(lambda: pass_on(queue_ids))


class Later:
    """Threads that talk to RabbitMQ for those who must not wait for it. One is made where all others have a job."""

    def __init__(self) -> None:
        self._jobs: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._lock = threading.Lock()
        self._threads = 0
        self._idle = 0  # of them, less the jobs that wait for one

    def put(self, job: Callable[[], None]) -> None:
        """Never waits."""
        with self._lock:
            self._jobs.put(job)
            if self._idle > 0:
                self._idle -= 1
            elif self._threads < MOST_THREADS:
                threading.Thread(target=self._run, name="passing on", daemon=True).start()
                self._threads += 1

    def _run(self) -> None:
        while True:
            try:
                self._jobs.get()()
            except BrokerUnavailable as error:
                log.warning("RabbitMQ was not told", error=str(error))
            except Exception:  # the next job's tokens are other users'
                log.exception("a job for RabbitMQ has a defect")
            with self._lock:
                self._idle += 1


_later = Later()
later = _later.put
