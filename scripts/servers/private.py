"""A server of our own: started from installed programs on free loopback ports, with its data in a folder of ours."""

import os
import secrets
import shutil
import time
from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType
from typing import IO, ClassVar, Self

from scripts.place import SetupError, free_port, port_taken, read_state, write_state
from scripts.servers import packages
from scripts.servers.process import Process, launch


class PrivateServer(ABC):
    """One server in `folder`. Its ports, its password and its data stay the same over stop, kill and restart.

    What was started is written down in the folder, so that a later run finds it again (`guarded=False`: it lives on
    when we end) or knows that it is gone.
    """

    title: ClassVar[str]
    package: ClassVar[str]  # Debian's and Ubuntu's
    image: ClassVar[str]  # Docker's
    start_seconds: ClassVar[float] = 60
    stop_signal: ClassVar[int] = 15

    def __init__(self, folder: Path, *, guarded: bool = True) -> None:
        self.folder = folder
        self.guarded = guarded
        self.state_path = folder / "state.json"
        self.state = read_state(self.state_path)
        self.process: Process | None = None
        if "pid" in self.state:
            self.process = Process(self.state["pid"], self.state["born"], self.stop_signal)

    @classmethod
    @abstractmethod
    def installed(cls) -> bool:
        """Whether its programs are on this machine."""

    @property
    @abstractmethod
    def url(self) -> str: ...

    @property
    def port(self) -> int:
        return int(self.state["port"])

    @property
    def password(self) -> str:
        return str(self.state["password"])

    def running(self) -> bool:
        return self.process is not None and self.process.alive()

    def start(self) -> Self:
        """Starts it and waits until it answers. Raises SetupError with the end of its log when it does not."""
        self.launch()
        return self.wait()

    def launch(self) -> None:
        """Starts it without waiting, so that several can start at once."""
        if self.running():
            return
        self.obtain()
        if not self.state:
            self.state = {"port": free_port(), "password": secrets.token_urlsafe(18)}
        elif port_taken(self.port):
            raise SetupError(f"{self.title}'s port {self.port} was taken by another program; `./run stop`, then again.")
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o700)
        self.remember()
        self.prepare()
        with self.log_path.open("ab") as log:
            self.process = self.execute(log)
        self.state |= {"pid": self.process.pid, "born": self.process.born}
        self.remember()

    def obtain(self) -> None:
        """Has its programs installed where they are missing. Raises SetupError where that cannot be."""
        why = None if self.installed() else packages.why_not() or packages.install(self.package)
        if not self.installed():
            raise SetupError(f"No program of {self.title} is here (apt-get: {why}). Install package {self.package}.")

    def wait(self) -> Self:
        """Returns when it answers."""
        deadline = time.monotonic() + self.start_seconds
        while not self.answers():
            if not self.running() or time.monotonic() > deadline:
                self.kill()
                last = self.log_path.read_text(errors="replace").strip().splitlines()[-5:]
                raise SetupError(f"{self.title} did not start. The end of {self.log_path}: {' | '.join(last)}")
            time.sleep(0.05)
        return self

    def stop(self) -> None:
        """Ends it in order."""
        if self.process is not None:
            self.process.stop(grace=20)
            self.forget_process()

    def kill(self) -> None:
        """kill -9."""
        if self.process is not None:
            self.process.kill()
            self.forget_process()

    def restart(self) -> None:
        """Stops it, starts it on the same port with the same data, and waits until it answers."""
        self.stop()
        self.start()

    def remove(self) -> None:
        """Ends it and removes its data."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def pause(self) -> None:
        """SIGSTOP: its connections stay open, nobody answers."""
        if self.process is not None:
            self.process.pause()

    def resume(self) -> None:
        if self.process is not None:
            self.process.resume()

    def __enter__(self) -> Self:
        """For a while: at the end of the block its data goes too."""
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()

    @property
    def log_path(self) -> Path:
        return self.folder / "log"

    @abstractmethod
    def prepare(self) -> None:
        """Makes the data and configuration that the first start needs."""

    def keep_secret(self, name: str, text: str) -> None:
        """A file of the folder that its owner alone may read, from its first moment on."""
        path = self.folder / name
        path.unlink(missing_ok=True)
        path.touch(mode=0o600)
        path.write_text(text)

    @abstractmethod
    def execute(self, log: IO[bytes]) -> Process: ...

    @abstractmethod
    def answers(self) -> bool:
        """Whether a client gets an answer now."""

    def remember(self) -> None:
        write_state(self.state_path, self.state)

    def forget_process(self) -> None:
        self.process = None
        for key in ("pid", "born"):
            self.state.pop(key, None)
        self.remember()

    def spawn(
        self, command: list[str], log: IO[bytes], environment: dict[str, str], user: str | None = None
    ) -> Process:
        return launch(
            command,
            environment=environment,
            output=log,
            folder=self.folder,
            user=user,
            stop_signal=self.stop_signal,
            guarded=self.guarded,
        )


def clean_environment(**more: str) -> dict[str, str]:
    """The little that a server needs of ours: nothing of the caller's PG.., RABBITMQ_.. or ERL_.. settings leaks in."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "TZ", "TMPDIR") if name in os.environ}
    return kept | more
