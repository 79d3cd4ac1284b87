"""The last resort: a server in a container, its port on loopback alone."""

import secrets
import shutil
import subprocess
import time
from hashlib import sha256
from pathlib import Path
from typing import Self

from scripts.place import ROOT, SetupError, free_port, read_state, write_state
from scripts.servers import postgresql, rabbitmq, redis

RECIPES = {
    "PostgreSQL": (
        5432,
        ["-e", "POSTGRES_PASSWORD={password}", "-e", "POSTGRES_DB=ordered_work"],
        [],
        "postgres://postgres:{password}@127.0.0.1:{port}/ordered_work",
        postgresql.reach,
    ),
    "RabbitMQ": (
        5672,
        ["-e", "RABBITMQ_DEFAULT_USER=ordered_work", "-e", "RABBITMQ_DEFAULT_PASS={password}"],
        [],
        "amqp://ordered_work:{password}@127.0.0.1:{port}/%2F",
        rabbitmq.reach,
    ),
    "Redis": (
        6379,
        [],
        ["redis-server", "--requirepass", "{password}", "--save", ""],
        "redis://:{password}@127.0.0.1:{port}/0",
        redis.reach,
    ),
}


def why_not() -> str | None:
    """Why no container can be started here; None when one can."""
    if not shutil.which("docker"):
        return "no docker command"
    done = subprocess.run(["docker", "info"], capture_output=True, check=False)
    return None if done.returncode == 0 else "no Docker engine answers"


class Container:
    """One server's container; its name, port and password are kept in `folder`."""

    def __init__(self, title: str, image: str, folder: Path) -> None:
        self.title = title
        self.image = image
        self.state_path = folder / "container.json"
        self.state = read_state(self.state_path)

    @property
    def url(self) -> str:
        return RECIPES[self.title][3].format(**self.state)

    def running(self) -> bool:
        if not self.state:
            return False
        done = self._docker("inspect", "-f", "{{.State.Running}}", self.state["name"])
        return done.returncode == 0 and done.stdout.strip() == "true"

    def start(self) -> Self:
        """Starts it and waits until it answers. Raises SetupError when it does not within two minutes."""
        if self.state and self._docker("start", self.state["name"]).returncode == 0:
            return self._wait()
        port, options, command, _, _ = RECIPES[self.title]
        name = f"ordered-work-{sha256(str(ROOT).encode()).hexdigest()[:8]}-{self.title.lower()}"
        self.state = {"name": name, "port": free_port(), "password": secrets.token_urlsafe(18)}
        write_state(self.state_path, self.state)
        filled = [option.format(**self.state) for option in options]
        end = [word.format(**self.state) for word in command]
        self._docker("rm", "-f", name)
        done = self._docker(
            "run", "-d", "--name", name, "-p", f"127.0.0.1:{self.state['port']}:{port}", *filled, self.image, *end
        )
        if done.returncode:
            raise SetupError(f"{self.title}: docker run {self.image} failed: {done.stderr.strip()}")
        return self._wait()

    def stop(self) -> None:
        if self.state:
            self._docker("stop", self.state["name"])

    def kill(self) -> None:
        if self.state:
            self._docker("kill", self.state["name"])

    def remove(self) -> None:
        """Ends it and removes it with its data."""
        if self.state:
            self._docker("rm", "-f", "-v", self.state["name"])

    def _wait(self) -> Self:
        deadline = time.monotonic() + 120
        reach = RECIPES[self.title][4]
        while (wrong := reach(self.url)) is not None:
            if time.monotonic() > deadline:
                raise SetupError(f"{self.title} in container {self.state['name']} does not answer: {wrong}")
            time.sleep(0.2)
        return self

    @staticmethod
    def _docker(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)
