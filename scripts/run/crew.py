"""Runs the processes of a table side by side, their output in one log, and starts again what dies."""

import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from rich.console import Console
from rich.text import Text

from scripts.place import ROOT
from scripts.run.application import Service
from scripts.servers.process import Process, launch, stop_all

GRACE_SECONDS = 26.0  # longer than the processes themselves give their running handlers
LONGEST_PAUSE = 10.0  # seconds between two starts of what dies again and again
HEALTHY_SECONDS = 30.0  # what lived for so long starts afresh


@dataclass
class Member:
    """One service, as it runs now."""

    service: Service
    process: Process | None = None
    started: float = 0.0
    failures: int = 0
    not_before: float = 0.0


class Crew:
    """The running services. `say(service, line)` gets every line that they print."""

    def __init__(
        self, services: list[Service], environment: dict[str, str], say: Callable[[Service, str], None]
    ) -> None:
        self.members = [Member(service) for service in services]
        self.environment = environment
        self.say = say

    def tend(self) -> None:
        """Starts what does not run: at once the first time, then ever more slowly. To be called again and again."""
        for member in self.members:
            if member.process is not None and not member.process.alive():
                self._bury(member)
            if member.process is None and time.monotonic() >= member.not_before:
                self._start(member)

    def stop(self) -> None:
        """SIGTERM to all, and kill -9 to what is left after the grace time. Called in vain when nothing runs."""
        stop_all([member.process for member in self.members if member.process is not None], GRACE_SECONDS)
        for member in self.members:
            member.process = None

    def kill(self) -> None:
        for member in self.members:
            if member.process is not None:
                member.process.kill()
                member.process = None

    def _start(self, member: Member) -> None:
        member.process = launch(member.service.command, environment=self.environment, output=None, folder=ROOT)
        member.started = time.monotonic()
        threading.Thread(target=self._relay, args=(member.service, member.process), daemon=True).start()

    def _bury(self, member: Member) -> None:
        assert member.process is not None
        status = member.process.child.returncode if member.process.child else None
        member.process.kill()  # what it started must not meet what is started next
        lived = time.monotonic() - member.started
        member.failures = 1 if lived > HEALTHY_SECONDS else member.failures + 1
        pause = min(LONGEST_PAUSE, 0.5 * 2 ** (member.failures - 1))
        member.not_before = time.monotonic() + pause
        member.process = None
        self.say(member.service, f"ended with status {status}; started again in {pause:g} s")

    def _relay(self, service: Service, process: Process) -> None:
        assert process.child is not None
        assert process.child.stdout is not None
        with process.child.stdout as output:
            for line in output:
                self.say(service, line.decode(errors="replace").rstrip("\n"))


class Printer:
    """Writes whole lines, each after its process's name; in colour on a terminal. It goes on when nobody reads."""

    def __init__(self) -> None:
        self.console = Console(file=sys.stdout, soft_wrap=True, highlight=False, markup=False)
        self.lock = threading.Lock()
        self.names: dict[str, str] = {}  # as they are shown
        self.unread = False

    def __call__(self, service: Service, line: str) -> None:
        with self.lock:
            if self.unread:
                return
            if service.name not in self.names:
                self.names[service.name] = self._shown(Text(f"{service.name:11}", style=service.colour))
            if not line.isprintable():  # else there is nothing to interpret, which takes many times as long
                line = self._shown(Text.from_ansi(line))
            try:
                self.console.file.write(f"{self.names[service.name]}{line}\n")
                self.console.file.flush()
            except BrokenPipeError:
                self.unread = True

    def _shown(self, text: Text) -> str:
        with self.console.capture() as shown:
            self.console.print(text, end="")
        return shown.get()
