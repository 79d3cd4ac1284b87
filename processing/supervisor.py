"""Keeps worker processes alive: one that dies is started again, at once the first time, then ever more slowly."""

import ctypes
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass

import structlog
from django.conf import settings

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


def supervise(commands: list[list[str]], stop: threading.Event) -> None:
    """Run each command, again whenever it ends, until `stop` is set; then SIGTERM, and SIGKILL after the grace time."""
    slots = [Slot(command) for command in commands]
    while not stop.is_set():
        for slot in slots:
            _tend(slot)
        stop.wait(0.05)
    for slot in slots:
        if slot.process is not None and slot.process.poll() is None:
            slot.process.terminate()
    deadline = time.monotonic() + settings.ENV.stop_grace_seconds + 5
    for slot in slots:
        if slot.process is not None:
            try:
                slot.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                slot.process.kill()


def _tend(slot: Slot) -> None:
    now = time.monotonic()
    if slot.process is not None:
        status = slot.process.poll()
        if status is None:
            return
        slot.failures = 1 if now - slot.started > HEALTHY_SECONDS else slot.failures + 1
        slot.not_before = now + min(LONGEST_PAUSE, 0.25 * 2 ** (slot.failures - 1) - 0.25)
        log.warning("a process died and is started again", pid=slot.process.pid, status=status)
        slot.process = None
    if now >= slot.not_before:
        slot.started = now
        slot.process = subprocess.Popen(  # noqa: S603  (our own command line)
            [sys.executable, *slot.command], preexec_fn=_die_with_parent if sys.platform == "linux" else None
        )


def _die_with_parent() -> None:
    """Be told when the supervisor is killed: no process is left over. Source: prctl(2)."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
