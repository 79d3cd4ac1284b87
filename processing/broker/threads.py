"""The threads of a worker process that take tokens: the usual ones, and more while slow handlers hold these."""

import threading
import time
from collections.abc import Callable

import structlog
from dramatiq import Broker, Middleware, Worker

from processing.broker.tokens import broker, consumers

log = structlog.get_logger()

LOOK_SECONDS = 0.5  # between two calls of `fit`
GROW_SECONDS = 2.0  # slow handlers hold the threads for so long before there are more ..
SHRINK_SECONDS = 30.0  # .. and for so long they would have had room in the usual ones before these end


class Threads:
    """`least` threads, and `most` while these are `crowded`; all take tokens while they `may_take`.

    `resized` gets their number whenever it changes; each that ends calls `release`.
    """

    def __init__(
        self,
        least: int,
        most: int,
        *,
        may_take: Callable[[], bool],
        crowded: Callable[[int], bool],
        resized: Callable[[int], None],
        release: Callable[[], None],
    ) -> None:
        self.least, self.most = least, most
        self._crowded, self._resized = crowded, resized
        broker.add_middleware(_Release(release))
        self._may_take = may_take
        self._usual = self._worker(least)
        self._more: Worker | None = None
        self._ending: threading.Thread | None = None
        self._settled = time.monotonic()  # when there were last as many as there should be

    def start(self) -> None:
        """Take tokens from now on."""
        self._usual.start()
        self._resized(self.least)

    def fit(self) -> None:
        """Begin or end the additional threads, if it is time."""
        now = time.monotonic()
        grown = self._more is not None
        if self.most <= self.least or self._crowded(self.least) is grown:
            self._settled = now
        elif now - self._settled >= (SHRINK_SECONDS if grown else GROW_SECONDS):
            self._settled = now
            if grown:
                self._shrink()
            else:
                self._grow()

    def stop(self, timeout: int) -> None:
        """End them all, within so many milliseconds for each of two steps."""
        for worker in (self._usual, self._more):
            if worker is not None:
                worker.stop(timeout=timeout)

    def _worker(self, threads: int) -> Worker:
        worker = consumers(threads, self._may_take)
        worker.queue_prefetch = threads  # no token waits behind a busy thread
        return worker

    def _grow(self) -> None:
        if self._ending is not None and self._ending.is_alive():
            return  # handlers of the last ones still run: there would be too many
        log.info("slow handlers hold the threads; there are more now", threads=self.most)
        worker = self._worker(self.most - self.least)
        try:
            worker.start()
        except RuntimeError as error:  # the machine gives no more: those that have begun work
            log.error("not all threads could be started", error=str(error))
        self._more = worker
        self._resized(self.most)

    def _shrink(self) -> None:
        """Waits for nobody: what runs in them runs on."""
        worker, self._more = self._more, None
        assert worker is not None  # noqa: S101  (asked before)
        self._resized(self.least)
        self._ending = threading.Thread(target=_end, args=[worker], name="ending threads", daemon=True)
        self._ending.start()


class _Release(Middleware):
    """Has each thread that ends give back what it holds."""

    def __init__(self, release: Callable[[], None]) -> None:
        self.release = release

    def before_worker_thread_shutdown(self, broker: Broker, thread: threading.Thread) -> None:
        self.release()


def _end(worker: Worker) -> None:
    """Give its tokens back first, for dramatiq's own stop would keep them until the last handler has ended."""
    # It hears of no other queue of tokens any more: it would take tokens that none of its threads runs.
    broker.middleware = [one for one in broker.middleware if getattr(one, "worker", None) is not worker]
    for consumer in worker.consumers.values():
        consumer.stop()
    for consumer in worker.consumers.values():
        consumer.join()
        consumer.close()
    for thread in worker.workers:
        thread.stop()
    for thread in worker.workers:
        thread.join()
    log.info("the additional threads have ended")
