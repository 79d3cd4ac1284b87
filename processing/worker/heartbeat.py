"""A worker process's sign of life: a file that its watch writes, and its supervisor reads."""

import os
import time
from contextlib import suppress
from pathlib import Path

BEAT_SECONDS = 1.0
KNOWN, UNKNOWN = "known", "unknown"  # to PostgreSQL: without that the process takes no turn


class Heartbeat:
    """Of the process `pid`, or this one."""

    def __init__(self, directory: Path, pid: int | None = None) -> None:
        self.path = directory / f"beat-{pid or os.getpid()}"
        self._given = 0.0

    def give(self, known: bool) -> None:
        """This process goes on; written once a second at the most."""
        now = time.monotonic()
        if now - self._given >= BEAT_SECONDS:
            self._given = now
            with suppress(OSError):  # a full disk is no reason to end the watch, and with it the process
                self.path.write_text(KNOWN if known else UNKNOWN)

    def age(self) -> float | None:
        """Seconds since the last one; None: there was none yet."""
        try:
            return time.time() - self.path.stat().st_mtime
        except FileNotFoundError:
            return None

    def known(self) -> bool:
        """Whether the process could take a turn, when it last said so."""
        try:
            return self.path.read_text() == KNOWN
        except FileNotFoundError:
            return False

    def forget(self) -> None:
        """The process is dead."""
        self.path.unlink(missing_ok=True)
