"""A process of ours with all that it starts: known by number and birth, so that nobody else's is ever signalled."""

import contextlib
import os
import pwd
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import IO, Any

# Reads until its end of the pipe closes, which the kernel does however we die; then ends the process and its group.
GUARD = """
read -r _ && exit
kill -s "$1" "$2" 2>/dev/null && kill -s CONT "$2" 2>/dev/null
left=25
while [ "$left" -gt 0 ] && kill -0 "$2" 2>/dev/null; do left=$((left - 1)); sleep 1; done
kill -s KILL -- "-$2" 2>/dev/null
"""


@dataclass
class Process:
    """`pid` as it was born at `born`; another process that got the same number later is not it."""

    pid: int
    born: str
    stop_signal: int = signal.SIGTERM
    child: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    guard: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def alive(self) -> bool:
        if self.child is not None:  # its number is its own until we have its status
            return self.child.poll() is None
        return bool(self.born) and birth(self.pid) == self.born

    def signal(self, number: int) -> None:
        """Sends `number` to the process alone."""
        if self.alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def stop(self, grace: float) -> None:
        """Asks it to stop, and after `grace` seconds kills what is left of it."""
        family = descendants(self.pid) if self.alive() else []
        self.signal(self.stop_signal)
        self.signal(signal.SIGCONT)
        if not self.wait(grace):
            self.kill()
        self.finish()  # at once: later its number might be another's
        _kill(family)

    def kill(self) -> None:
        """kill -9, at once, with all that it started. The process stands still first, so that nothing new escapes."""
        self.signal(signal.SIGSTOP)
        family = descendants(self.pid) if self.alive() else []
        self.signal(signal.SIGKILL)
        self.wait(10)
        self.finish()
        _kill(family)

    def pause(self) -> None:
        """Stops it and all that it started in mid-air (SIGSTOP): connections stay open, nobody answers."""
        self.signal(signal.SIGSTOP)
        for process in descendants(self.pid):
            process.signal(signal.SIGSTOP)

    def resume(self) -> None:
        for process in descendants(self.pid):
            process.signal(signal.SIGCONT)
        self.signal(signal.SIGCONT)

    def wait(self, seconds: float) -> bool:
        """True as soon as it is gone, False when it still lives after `seconds`."""
        deadline = time.monotonic() + seconds
        while self.alive():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        return True

    def finish(self) -> None:
        """Ends what a dead process of ours left in its group, and sends its guard home."""
        if self.child is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
        if self.guard is not None and self.guard.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self.guard.stdin.write(b"\n")
                self.guard.stdin.close()
            self.guard.wait()
            self.guard = None


def launch(
    command: list[str],
    *,
    environment: dict[str, str],
    output: IO[bytes] | None,
    folder: Path,
    user: str | None = None,
    stop_signal: int = signal.SIGTERM,
    guarded: bool = True,
) -> Process:
    """Starts `command` in a session of its own; a guarded one does not outlive us, even when we are killed.

    What it prints goes to `output`, or can be read from `child.stdout`.
    """
    options: dict[str, Any] = {"user": user, "group": _group_of(user), "extra_groups": []} if user else {}
    child = subprocess.Popen(
        command,
        env=environment,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE if output is None else output,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        **options,
    )
    process = Process(child.pid, birth(child.pid), stop_signal, child)
    if guarded:
        name = signal.Signals(stop_signal).name.removeprefix("SIG")
        process.guard = subprocess.Popen(
            ["/bin/sh", "-c", GUARD, "guard", name, str(child.pid)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    return process


def signals_interrupt() -> None:
    """A stop, a closed terminal and Ctrl-C are one thing: KeyboardInterrupt, so that everything is put away."""

    last = -1.0

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last > 1:  # a terminal, a shell and `timeout` may each send the same one
            last = now
            raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, interrupt)


def birth(pid: int) -> str:
    """When process `pid` was born, in the system's own words; empty when there is none, or only its remains."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        if Path("/proc/self/stat").exists():
            return ""
        return _ps("-o", "lstart=", "-p", str(pid))
    after_name = stat.rpartition(")")[2].split()
    return "" if after_name[0] in "ZX" else after_name[19]


def descendants(pid: int) -> list[Process]:
    """All processes that `pid` started, and those they started."""
    children: dict[int, list[int]] = {}
    for one, parent in _parents():
        children.setdefault(parent, []).append(one)
    found, look = [], [pid]
    while look:
        for child in children.get(look.pop(), []):
            found.append(Process(child, birth(child)))
            look.append(child)
    return found


def stop_all(processes: list[Process], grace: float) -> None:
    """Asks all of them to stop at once; after `grace` seconds kills what is left of them and of what they started."""
    started = [one for process in processes for one in descendants(process.pid)]  # once those are gone, nobody's
    for process in processes:
        process.signal(process.stop_signal)
    deadline = time.monotonic() + grace
    for process in processes:
        process.stop(max(0.0, deadline - time.monotonic()))
    _kill(started)


def _kill(family: list[Process]) -> None:
    for process in family:
        process.signal(signal.SIGKILL)
    for process in family:
        process.wait(5)


def _parents() -> list[tuple[int, int]]:
    if not Path("/proc/self/stat").exists():
        rows = _ps("-axo", "pid=,ppid=").splitlines()
        return [(int(pid), int(parent)) for pid, parent in (row.split() for row in rows)]
    pairs = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                stat = (entry / "stat").read_text()
                pairs.append((int(entry.name), int(stat.rpartition(")")[2].split()[1])))
    return pairs


def _ps(*arguments: str) -> str:
    done = subprocess.run(["ps", *arguments], capture_output=True, text=True, check=False)
    return done.stdout.strip()


def _group_of(user: str) -> int:
    return pwd.getpwnam(user).pw_gid
