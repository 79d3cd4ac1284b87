"""The last attempt of a request that may have ended its workers: in a process of its own.

Nobody knows which of the requests that ran in a dead process ended it, so each of them has lost an attempt. Alone, the
one that did it harms nobody with its last; and none of the others loses its last to somebody else.
"""

import os
import subprocess
import sys
import threading

import structlog

from processing.recording import Recording
from processing.watch import Watch
from queues.lease import FencedOut, Lease
from queues.states import QueueState

log = structlog.get_logger()

TRY_AGAIN_SECONDS = 1.0  # one process of its own beside each worker process, so that a crowd of them fills no memory
LAST_WORDS_SECONDS = 1.0


class Isolation:
    """Starts those processes for one worker process, one at a time; a thread of it waits meanwhile."""

    def __init__(self, watch: Watch) -> None:
        self.watch = watch
        self._free = threading.Lock()

    def run(self, lease: Lease) -> bool:
        """Leave the queue to a process that runs one request of it. Whether none did, and it wants a token."""
        try:
            if not self._ran(lease):
                lease.record(0, [], QueueState.WAITING, delay=TRY_AGAIN_SECONDS)
                return False
            lease.record(0, [], QueueState.READY)
        except FencedOut:
            return False  # as it should be: the queue was the other process's
        return not lease.paused

    def _ran(self, lease: Lease) -> bool:
        """Whether there was such a process. None while another one runs, or when the machine gives no more."""
        if not self._free.acquire(blocking=False):
            return False
        try:
            self._run(lease)
        except OSError as error:  # no memory, or too many processes
            log.error("no process for one request", queue=lease.queue_id, error=str(error))
            return False
        finally:
            self._free.release()
        return True

    def _run(self, lease: Lease) -> None:
        log.warning("workers died with this queue's request: its last attempt runs alone", queue=lease.queue_id)
        process = subprocess.Popen(  # noqa: S603  (our own command line)
            [sys.executable, sys.argv[0], "work", "--alone", str(lease.queue_id), str(lease.fence)],
            env={**os.environ, "TURN_REQUESTS": "1"},
        )
        alone = Alone(process, lease, self.watch)
        self.watch.add(alone)
        try:
            status = process.wait()
        finally:
            self.watch.remove(alone)
        log.info("the process of one request ended", queue=lease.queue_id, status=status)


class Alone:
    """Such a process as the watch sees it: it gets the lease alive, and it stops when this one does."""

    def __init__(self, process: "subprocess.Popen[bytes]", lease: Lease, watch: Watch) -> None:
        self.process = process
        self.watch = watch
        self.recording = Recording(lease)
        self.taken = False  # the lease is the process's own by now
        self.told = False

    def __str__(self) -> str:
        return f"process {self.process.pid}, which runs one request"

    def look_after(self) -> None:
        """Called by the watch."""
        if self.watch.stopping.is_set() and not self.told:
            self.told = True
            self.process.terminate()
        if not self.taken:
            try:
                self.recording.renew(self.recording.lease.done_seq + 1)
            except FencedOut:
                self.taken = True

    def abandon(self) -> None:
        """Its own grace time ends now, too, and it gives its lease back."""
        try:
            self.process.wait(LAST_WORDS_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
