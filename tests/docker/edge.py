"""nginx with the shipped configuration, on ports and in a folder of a test's own."""

import os
import re
import ssl
import subprocess
from collections.abc import Mapping
from http.client import HTTPResponse, HTTPSConnection
from pathlib import Path
from typing import Self

from scripts.place import ROOT, free_port
from scripts.servers.process import Process, launch
from tests.docker.compose import by_default, services
from tests.waiting import until

SHIPPED = ROOT / "docker" / "nginx"
HOST = "localhost"  # what docker/make-secrets makes a certificate for


def variables() -> dict[str, str]:
    """What compose.yml gives to nginx."""
    given = services()["nginx"]["environment"]
    return {name: by_default(value) for name, value in given.items()}


def filled(template: str, given: Mapping[str, str]) -> str:
    """As the official image fills a template in: names that the environment has, nothing else."""
    return re.sub(r"\$\{(\w+)\}", lambda found: given.get(found[1], found[0]), template)


def placed(text: str, changes: Mapping[str, str]) -> str:
    """`text` with each key, which must be there, replaced."""
    for shipped, here in changes.items():
        assert shipped in text, f"{shipped} is not in the configuration"
        text = text.replace(shipped, here)
    return text


def without_http2_directive(nginx: str) -> dict[str, str]:
    """What is changed for an nginx (Debian 12's) that is older than the image's and has no directive `http2`."""
    said = subprocess.run([nginx, "-v"], capture_output=True, text=True, check=True).stderr
    version = tuple(int(number) for number in re.findall(r"\d+", said)[:3])
    return {} if version >= (1, 25, 1) else {"ssl default_server;": "ssl http2 default_server;", "http2 on;": ""}


class Edge:
    """One nginx. `more` are variables of its environment, `changes` replace text of the shipped files."""

    def __init__(
        self, nginx: str, folder: Path, secrets: Path, more: Mapping[str, str], changes: Mapping[str, str]
    ) -> None:
        self.nginx = nginx
        self.folder = folder
        self.http_port, self.port = free_port(), free_port()
        self.trust = ssl.create_default_context(cafile=secrets / "tls.crt")
        self.changes = without_http2_directive(nginx) | dict(changes)
        self.given = variables() | {
            "HTTP_PORT": f"127.0.0.1:{self.http_port}",
            "HTTPS_PORT": f"127.0.0.1:{self.port}",
            "SECRETS_DIR": str(secrets),
            **more,
        }
        self.process: Process | None = None

    def __enter__(self) -> Self:
        (self.folder / "conf.d").mkdir(parents=True)
        (self.folder / "static").mkdir()
        here = {
            "/tmp/": f"{self.folder}/",
            "/etc/nginx/conf.d/": f"{self.folder}/conf.d/",
            "/dev/stdout": f"{self.folder}/access.log",
            "/dev/stderr": f"{self.folder}/error.log",
        }
        main = placed((SHIPPED / "nginx.conf").read_text(), here)
        for template in (SHIPPED / "templates").glob("*.template"):
            text = filled(placed(template.read_text(), {"root /srv;": f"root {self.folder};"}), self.given)
            (self.folder / "conf.d" / template.stem).write_text(self._changed(text))
        (self.folder / "nginx.conf").write_text(self._changed(main))
        command = [self.nginx, "-c", str(self.folder / "nginx.conf"), "-e", str(self.folder / "error.log")]
        checked = subprocess.run([*command, "-t"], capture_output=True, text=True, check=False)
        assert checked.returncode == 0, checked.stderr
        assert "[warn]" not in checked.stderr, checked.stderr
        running = "daemon off;" if os.geteuid() else "daemon off; user root;"  # the folder is its starter's alone
        with (self.folder / "output").open("wb") as output:
            self.process = launch([*command, "-g", running], environment={}, output=output, folder=self.folder)
        until(self._answers, 30, self.errors)
        return self

    def __exit__(self, *_: object) -> None:
        if self.process is not None:
            self.process.stop(grace=5)

    def connect(self, timeout: float = 60) -> HTTPSConnection:
        connection = HTTPSConnection(HOST, self.port, timeout=timeout, context=self.trust)
        connection.connect()
        return connection

    def ask(self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] = {}) -> HTTPResponse:
        """One answer, over a connection of its own; its body is still to be read."""
        connection = self.connect()
        connection.request(method, path, body, {"Connection": "close", **headers})
        return connection.getresponse()

    def errors(self) -> str:
        return (self.folder / "error.log").read_text()

    def _changed(self, text: str) -> str:
        for shipped, here in self.changes.items():
            text = text.replace(shipped, here)
        return text

    def _answers(self) -> bool:
        try:
            self.connect(timeout=1).close()
        except OSError:
            return False
        return True
