"""The last attempt of a request that may have ended its workers: in a process of its own.

Nobody knows which of the requests that ran in a dead process ended it, so each of them has lost an attempt. Alone, the
one that did it harms nobody with its last; and none of the others loses its last to somebody else.
"""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import structlog

from processing.worker.recorder import Recording
from processing.worker.watchdog import Renewal, Watchdog
from queues.exceptions import FencedOut
from queues.lifecycle.lease import Lease
from queues.states import QueueState

log = structlog.get_logger()

TRY_AGAIN_SECONDS = 1.0  # one process of its own beside each worker process, so that a crowd of them fills no memory
START_SECONDS = 60.0  # one that has not taken the lease by then hangs in its start
LAST_WORDS_SECONDS = 2.0  # its own grace time is shorter by this than its worker's


class Isolation:
    """Starts those processes for one worker process, one at a time; a thread of it waits meanwhile."""

    def __init__(self, watch: Watchdog) -> None:
        self.watch = watch
        self._free = threading.Lock()

    def run(self, lease: Lease) -> None:
        """Leave the queue to a process that runs one request of it.

        Where none takes it, it waits a moment: another one runs, the machine gives no more, or it died in its start.
        """
        if self._free.acquire(blocking=False):
            try:
                self._run(lease)
            except OSError as error:  # no memory, or too many processes
                log.error("no process for one request", queue=lease.queue_id, error=str(error))
            finally:
                self._free.release()
        with suppress(FencedOut):  # as it should be: the queue was the other process's
            lease.record(0, [], QueueState.WAITING, delay=TRY_AGAIN_SECONDS)

    def _run(self, lease: Lease) -> None:
        log.warning("workers died with this queue's request: its last attempt runs alone", queue=lease.queue_id)
        about = map(str, (lease.queue_id, lease.fence, os.getpid()))
        command = [sys.executable, sys.argv[0], "work", "--alone", *about, "--skip-checks"]
        process = subprocess.Popen(command)  # noqa: S603  (our own)
        alone = IsolatedProcess(process, lease, self.watch)
        self.watch.add(alone)
        try:
            status = process.wait()
        finally:
            self.watch.remove(alone)
        log.info("the process of one request ended", queue=lease.queue_id, status=status)


class IsolatedProcess:
    """Such a process as the watch sees it: it gets the lease alive, and it stops when this one does."""

    def __init__(self, process: "subprocess.Popen[bytes]", lease: Lease, watch: Watchdog) -> None:
        self.process = process
        self.watch = watch
        self.recording = Recording(lease)
        self.began = time.monotonic()
        self.gone = False  # the lease: it is the process's own by now, or nobody's
        self.handed_over = False

    def __str__(self) -> str:
        return f"process {self.process.pid}, which runs one request"

    def check(self) -> None:
        """Called by the watch."""
        if self.watch.stopping.is_set():
            self._tell()
        if self.gone:
            return
        if time.monotonic() - self.began > START_SECONDS:
            self.process.kill()

    keep_time = check

    def renewals(self) -> Iterator[Renewal]:
        """The lease, until the process has taken it over."""
        if not self.gone and self.recording.is_to_renew():
            lease = self.recording.lease
            yield Renewal(lease.queue_id, lease.fence, lease.done_seq + 1, lambda: None)

    def fenced_out(self, queue_id: int) -> None:
        """The process has it; it is still to be told to stop."""
        self.gone = True

    def _tell(self) -> None:
        """Ask it to stop, once."""
        if not self.handed_over:
            self.handed_over = True
            self.process.terminate()

    def abandon(self) -> None:
        """Its own grace time has ended, and it has given its lease back, unless it hangs."""
        self._tell()
        try:
            self.process.wait(LAST_WORDS_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
