"""Keeps worker processes alive: one that dies is started again, at once the first time, then ever more slowly."""

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import structlog
from django.conf import settings
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

log = structlog.get_logger()

LONGEST_PAUSE = 5.0  # seconds between two starts of a process that dies again and again
HEALTHY_SECONDS = 30.0  # one that lived for so long starts afresh
PR_SET_PDEATHSIG = 1


@dataclass
class Slot:
    """One place for a process."""

    command: list[str]
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    failures: int = 0
    not_before: float = 0.0


class Supervisor:
    """Runs each command, with `environment` beside its own, and tells `ended` which process died.

    It is a collector of metrics.
    """

    def __init__(
        self,
        commands: list[list[str]],
        environment: Mapping[str, str],
        ended: Callable[[int], None] = lambda _: None,
    ) -> None:
        self.ended = ended
        self.slots = [Slot(command) for command in commands]
        self.environment = {**os.environ, **environment}
        self.restarts = 0
        self.looked = time.monotonic()

    def run(self, stop: threading.Event) -> None:
        """Run them, again whenever one ends, until `stop` is set; then SIGTERM, and SIGKILL after the grace time."""
        while not stop.is_set():
            for slot in self.slots:
                self._tend(slot)
            self.looked = time.monotonic()
            stop.wait(0.05)
        for slot in self.slots:
            if slot.process is not None and slot.process.poll() is None:
                slot.process.terminate()
        deadline = time.monotonic() + settings.ENV.stop_grace_seconds + 5
        for slot in self.slots:
            if slot.process is not None:
                try:
                    slot.process.wait(max(0.0, deadline - time.monotonic()))
                except subprocess.TimeoutExpired:
                    slot.process.kill()

    def _tend(self, slot: Slot) -> None:
        now = time.monotonic()
        if slot.process is not None:
            status = slot.process.poll()
            if status is None:
                return
            slot.failures = 1 if now - slot.started > HEALTHY_SECONDS else slot.failures + 1
            slot.not_before = now + min(LONGEST_PAUSE, 0.25 * 2 ** (slot.failures - 1) - 0.25)
            self.restarts += 1
            self.ended(slot.process.pid)
            log.warning("a process died and is started again", pid=slot.process.pid, status=status)
            slot.process = None
        if now >= slot.not_before:
            slot.started = now
            slot.process = subprocess.Popen(  # noqa: S603  (our own command line)
                [sys.executable, *slot.command],
                env=self.environment,
                preexec_fn=die_with_parent,
            )

    def running(self) -> list[tuple[int, float]]:
        """The processes that run now, and when each was started on the monotonic clock. From any thread."""
        found = [(slot.process, slot.started) for slot in self.slots]
        return [(process.pid, started) for process, started in found if process is not None and process.poll() is None]

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily(
            "ordered_work_worker_children", "Worker processes of this service.", len(self.running())
        )
        yield CounterMetricFamily("ordered_work_worker_restarts", "Processes that died and began anew.", self.restarts)


def die_with_parent() -> None:
    """Have this process told when its parent is killed: none is left over. Source: prctl(2)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
