"""RabbitMQ: found where it listens by custom, given a virtual host of our own, or started from installed programs."""

import contextlib
import http.client
import json
import os
import secrets
import shutil
import subprocess
import threading
import urllib.error
import urllib.request
from base64 import b64encode
from pathlib import Path
from typing import IO
from urllib.parse import quote, unquote, urlsplit, urlunsplit

import pika
import pika.exceptions
from pika.adapters.utils.connection_workflow import AMQPConnectorException

from project.rabbitmq_addresses import amqp_urls
from scripts.place import free_port
from scripts.servers.private import PrivateServer, clean_environment
from scripts.servers.process import Process, launch

VARIABLE = "RABBITMQ_URL"
EXAMPLE = "amqp://user:password@host:5672/%2F"
CUSTOM = "amqp://guest:guest@127.0.0.1:5672/%2F"
MANAGEMENT_AFTER = 10_000  # by custom the management interface listens so many ports after the broker
ANSWER_SECONDS = 5


def reach(url: str) -> str | None:
    """Why the RabbitMQ at `url` cannot be used; None when a queue can be declared there."""
    parameters = [pika.URLParameters(one) for one in amqp_urls(url)]
    for one in parameters:
        one.socket_timeout = one.stack_timeout = ANSWER_SECONDS
        one.connection_attempts = 1
    wrong: list[str | None] = []

    def declare() -> None:
        try:
            with pika.BlockingConnection(parameters) as connection:
                connection.channel().queue_declare("", exclusive=True)
            wrong.append(None)
        except (pika.exceptions.AMQPError, AMQPConnectorException, OSError) as failure:
            wrong.append(f"{type(failure).__name__}: {failure}".rstrip(": "))

    # In a thread of its own: a sick broker lets clients in and then answers nothing, for which pika has no limit.
    looking = threading.Thread(target=declare, daemon=True)
    looking.start()
    patience = ANSWER_SECONDS * len(parameters) + 3
    looking.join(patience)
    return wrong[0] if wrong else f"no answer for {patience} s"


def answering() -> tuple[str | None, list[str]]:
    """The address of a RabbitMQ on its usual port that knows the usual guest, and what was tried."""
    wrong = reach(CUSTOM)
    return (None, [f"127.0.0.1:5672 as guest: {wrong}"]) if wrong else (CUSTOM, [])


def with_vhost(url: str, name: str) -> str:
    """The same broker and user, another virtual host."""
    return urlunsplit(urlsplit(url)._replace(path=f"/{quote(name, safe='')}"))


def own_vhost(url: str, name: str, control: "Control | None" = None) -> str | None:
    """The address of virtual host `name` on the broker of `url`, made if it is not there; None where none can be made.

    AMQP has no word for it. `rabbitmqctl` is tried, then the management interface; whether it was this broker and no
    other that they spoke to is seen by going there.
    """
    ours = with_vhost(url, name)
    if reach(ours) is None:
        return ours
    user = unquote(urlsplit(amqp_urls(url)[0]).username or "guest")
    control = control or Control.of_system(url)
    if control and control.run("add_vhost", name):
        control.run("set_permissions", "-p", name, user, ".*", ".*", ".*")
        if reach(ours) is None:
            return ours
        control.run("delete_vhost", name)
    vhost = quote(name, safe="")
    if _manage("PUT", url, f"vhosts/{vhost}"):
        _manage("PUT", url, f"permissions/{vhost}/{quote(user)}", {"configure": ".*", "write": ".*", "read": ".*"})
        if reach(ours) is None:
            return ours
    return None


def drop_vhost(url: str, control: "Control | None" = None) -> None:
    """Removes the virtual host that `url` names, with its queues."""
    name = unquote(urlsplit(url).path[1:])
    control = control or Control.of_system(url)
    if not (control and control.run("delete_vhost", name)):
        _manage("DELETE", url, f"vhosts/{quote(name, safe='')}")


def delete_queues(url: str, prefix: str, users: int) -> None:
    """Removes the project's queues whose names begin with `prefix`, those of the users' queues 1 to `users` too.

    AMQP cannot list queues; deleting one that is not there is no error.
    """
    names = [f"drain{end}" for end in ("", ".DQ", ".XQ", ".1")] + [f"user.{number}" for number in range(1, users + 1)]
    gone = contextlib.suppress(pika.exceptions.AMQPError, AMQPConnectorException, OSError)
    with gone, pika.BlockingConnection([pika.URLParameters(one) for one in amqp_urls(url)]) as connection:
        channel = connection.channel()
        for name in names:
            channel.queue_delete(prefix + name)


def management_interface(url: str) -> str:
    """Where the management interface of the broker at `url` listens by custom: 15672 for 5672."""
    parts = urlsplit(url)
    secure = parts.scheme == "amqps"
    port = (parts.port or (5671 if secure else 5672)) + MANAGEMENT_AFTER
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{'https' if secure else 'http'}://{host}:{port}/api"


def _manage(method: str, url: str, path: str, body: dict[str, str] | None = None) -> bool:
    parts = urlsplit(amqp_urls(url)[0])
    login = b64encode(f"{unquote(parts.username or 'guest')}:{unquote(parts.password or 'guest')}".encode()).decode()
    request = urllib.request.Request(  # noqa: S310  (http or https)
        f"{management_interface(url)}/{path}",
        data=json.dumps(body or {}).encode(),
        method=method,
        headers={"Authorization": f"Basic {login}", "Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=5):  # noqa: S310  (http)
            return True
    except (urllib.error.URLError, OSError, http.client.InvalidURL, OverflowError):  # no such port, too
        return False


class Control:
    """`rabbitmqctl` for one broker."""

    def __init__(self, program: str, environment: dict[str, str]) -> None:
        self.program = program
        self.environment = environment

    @classmethod
    def of_system(cls, url: str) -> "Control | None":
        """For the broker that the system runs, when `url` is its address; it lets root and its own user in."""
        parts = urlsplit(amqp_urls(url)[0])
        usual = parts.hostname in ("127.0.0.1", "localhost", "::1") and (parts.port or 5672) == 5672
        program = shutil.which("rabbitmqctl") if usual else None
        return cls(program, dict(os.environ)) if program else None

    def run(self, *arguments: str) -> bool:
        try:
            done = subprocess.run(
                [self.program, "-q", *arguments],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=60,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            return False
        return done.returncode == 0


class Rabbitmq(PrivateServer):
    """A private RabbitMQ on loopback, with a port mapper (epmd) of its own, so that no other Erlang node meets it."""

    title = "RabbitMQ"
    package = "rabbitmq-server"
    image = "rabbitmq:4.1"
    start_seconds = 90

    @classmethod
    def installed(cls) -> bool:
        return cls.programs() is not None

    @staticmethod
    def programs() -> Path | None:
        """The folder of its own scripts. The ones that Debian puts on the PATH change user; these do not."""
        on_path = shutil.which("rabbitmq-server")
        folders = [Path("/usr/lib/rabbitmq/bin"), *sorted(Path("/usr/lib/rabbitmq/lib").glob("*/sbin"), reverse=True)]
        folders += [Path(on_path).resolve().parent] if on_path else []
        return next((folder for folder in folders if os.access(folder / "rabbitmq-server", os.X_OK)), None)

    @property
    def url(self) -> str:
        return f"amqp://ordered_work:{self.password}@127.0.0.1:{self.port}/%2F"

    @property
    def control(self) -> Control:
        """Its own `rabbitmqctl`."""
        return Control(str(self._folder() / "rabbitmqctl"), self._environment())

    def prepare(self) -> None:
        for name in ("dist_port", "epmd_port"):
            self.state.setdefault(name, free_port())
        self.state.setdefault("cookie", secrets.token_urlsafe(18))  # who has it has the node
        self.remember()
        self.keep_secret(".erlang.cookie", self.state["cookie"])
        (self.folder / "enabled_plugins").write_text("[].\n")
        (self.folder / "environment").write_text("")
        settings = [
            f"listeners.tcp.1 = 127.0.0.1:{self.port}",
            "default_user = ordered_work",
            f"default_pass = {self.password}",
            *self.more_settings(),
            "disk_free_limit.absolute = 50MB",
            "log.console = true",
            "log.console.level = warning",
            "log.file = false",
        ]
        self.keep_secret("rabbitmq.conf", "\n".join(settings) + "\n")

    def more_settings(self) -> list[str]:
        """Further lines of rabbitmq.conf."""
        return []

    @property
    def node(self) -> str:
        """A name after "localhost" needs no resolvable name of this machine."""
        return f"ordered-work-{self.port}@localhost"

    def execute(self, log: IO[bytes]) -> Process:
        self._start_epmd(log)
        return self.spawn([str(self._folder() / "rabbitmq-server")], log, self._environment())

    def answers(self) -> bool:
        return reach(self.url) is None

    def forget_process(self) -> None:
        epmd = self._epmd()
        if epmd:
            epmd.kill()
        for key in ("epmd_pid", "epmd_born"):
            self.state.pop(key, None)
        super().forget_process()

    def _start_epmd(self, log: IO[bytes]) -> None:
        """Ours, in the foreground: started by the broker it would stay behind as a daemon."""
        epmd = self._epmd()
        program = shutil.which("epmd")
        if program is None or (epmd and epmd.alive()):
            return
        started = launch(
            [program, "-port", str(self.state["epmd_port"]), "-address", "127.0.0.1"],
            environment=clean_environment(),
            output=log,
            folder=self.folder,
            guarded=self.guarded,
        )
        self.epmd = started
        self.state |= {"epmd_pid": started.pid, "epmd_born": started.born}

    epmd: Process | None = None

    def _epmd(self) -> Process | None:
        if self.epmd is None and "epmd_pid" in self.state:
            self.epmd = Process(self.state["epmd_pid"], self.state["epmd_born"])
        return self.epmd

    def _folder(self) -> Path:
        folder = self.programs()
        assert folder is not None
        return folder

    def _environment(self) -> dict[str, str]:
        folder = str(self.folder)
        return clean_environment(
            HOME=folder,
            ERL_EPMD_ADDRESS="127.0.0.1",
            ERL_EPMD_PORT=str(self.state["epmd_port"]),
            RABBITMQ_NODENAME=self.node,
            RABBITMQ_NODE_PORT=str(self.port),
            RABBITMQ_NODE_IP_ADDRESS="127.0.0.1",
            RABBITMQ_DIST_PORT=str(self.state["dist_port"]),
            RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="-kernel inet_dist_use_interface {127,0,0,1}",
            RABBITMQ_MNESIA_BASE=f"{folder}/data",
            RABBITMQ_LOG_BASE=f"{folder}/logs",
            RABBITMQ_CONFIG_FILE=f"{folder}/rabbitmq.conf",
            RABBITMQ_CONF_ENV_FILE=f"{folder}/environment",
            RABBITMQ_ENABLED_PLUGINS_FILE=f"{folder}/enabled_plugins",
            RUNNING_UNDER_SYSTEMD="1",  # the script becomes the server instead of its parent: signals meet it
        )
