"""The private stack under test: servers, a proxy before two of them, and the project's own processes, kept alive."""

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg

from scripts.chaos import journal, witness
from scripts.chaos.member import Member, children, distinct_ports, through
from scripts.place import ROOT, SetupError
from scripts.run.application import readiness
from scripts.servers import postgresql
from scripts.servers.postgresql import Postgresql
from scripts.servers.private import PrivateServer
from scripts.servers.process import Process, birth, descendants, launch
from scripts.servers.rabbitmq import Rabbitmq
from scripts.servers.redis import Redis

MEMBERS = ("api-1", "api-2", "dispatcher-1", "dispatcher-2", "worker-1", "worker-2", "worker-3")
THREADS = 4  # of a worker
LEASE_SECONDS = 3.0
GRACE_SECONDS = 3.0
MOST_CONNECTIONS = 90  # of the private PostgreSQL: few enough to use them all up
READY_SECONDS = 60.0
PORT_SECONDS = 10.0
WATCH_SECONDS = 0.02  # how soon the death of a process is noticed


class Stack:
    """Everything chaos starts. Nothing outside it is ever touched; `close` ends and removes it."""

    def __init__(self, manage: Path = ROOT / "manage.py", sql: str = "") -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="ordered-work-chaos-"))
        self.folder.chmod(0o711)
        self.journal = self.folder / "journal"
        self.logs = self.folder / "logs"
        for folder in (self.journal, self.logs):
            folder.mkdir()
        self.manage = manage
        self.sql = sql
        self.postgresql = Postgresql(self.folder / "postgresql")
        self.rabbitmq = Rabbitmq(self.folder / "rabbitmq")
        self.redis = Redis(self.folder / "redis")
        self.proxy: Process | None = None
        self.proxy_lock = threading.Lock()
        servers = {"postgresql": self.postgresql, "rabbitmq": self.rabbitmq}
        self.routes = {f"{server}@{member}": servers[server] for server in servers for member in MEMBERS}
        self.port, self.other_port, *ports = distinct_ports(2 + len(self.routes))  # of the API's two processes
        self.ports = dict(zip(self.routes, ports, strict=True))  # of the proxy, for each process and server
        self.members: list[Member] = []
        self.deaths: dict[int, list[float]] = {}  # of processes that run handlers: when it was noticed, for each pid
        self.ended = threading.Event()
        self.defect: BaseException | None = None
        self.tender = threading.Thread(target=self._tend_on, name="tender", daemon=True)

    # Starting and ending it.

    def start(self) -> None:
        """Start everything and wait until the API says that it is ready. Raises SetupError."""
        servers = (self.postgresql, self.rabbitmq, self.redis)
        for server in servers:
            server.launch()
        for server in servers:
            server.wait()
        with self.database() as database:
            database.execute(f"ALTER SYSTEM SET max_connections = {MOST_CONNECTIONS}")
        self.postgresql.restart()
        self._start_proxy()
        self._migrate()
        with self.database() as database:
            database.execute(witness.SCHEMA)
            if self.sql:
                database.execute(self.sql)
        self.members = list(self._table())
        self.tender.start()
        self._wait_until_ready()

    def close(self, keep: bool = False) -> None:
        """End everything; `keep` leaves logs and journals behind."""
        self.ended.set()
        if self.tender.is_alive():
            self.tender.join()
        for member in self.members:
            if member.process is not None:
                member.process.resume()
                member.process.kill()
            member.log.close()
        if self.proxy is not None:
            self.proxy.kill()
        for server in (self.postgresql, self.rabbitmq, self.redis):
            server.resume()
            server.kill()
            server.remove()
        if not keep:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _start_proxy(self) -> None:
        routes = [f"{name}={self.ports[name]}:{server.port}" for name, server in self.routes.items()]
        errors = (self.logs / "proxy").open("wb")
        child = subprocess.Popen(
            [sys.executable, "-m", "scripts.chaos.proxy", *routes],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
        )
        errors.close()
        self.proxy = Process(child.pid, birth(child.pid), child=child)  # ends when its standard input does
        self._hear()

    def tell_proxy(self, do: str, name: str, **more: Any) -> None:
        """Have the connections to a server, or those of SERVER@PROCESS alone, treated so; see proxy.py."""
        assert self.proxy is not None
        assert self.proxy.child is not None
        assert self.proxy.child.stdin is not None
        with self.proxy_lock:
            self.proxy.child.stdin.write(json.dumps({"do": do, "name": name, **more}).encode() + b"\n")
            self.proxy.child.stdin.flush()
            self._hear()

    def _hear(self) -> None:
        assert self.proxy is not None
        assert self.proxy.child is not None
        assert self.proxy.child.stdout is not None
        if not self.proxy.child.stdout.readline():
            raise SetupError(f"The proxy ended: {(self.logs / 'proxy').read_text()[-500:]}")

    def environment(self) -> dict[str, str]:
        """What every process of the project gets, but for the proxy's ports."""
        inherited = {name: value for name, value in os.environ.items() if name not in ("QUEUE_PREFIX", "EXTRA_APPS")}
        return {
            "SECRET_KEY": secrets.token_urlsafe(50),
            **inherited,
            "DEBUG": "1",
            "DATABASE_URL": self.postgresql.url,
            "RABBITMQ_URL": self.rabbitmq.url,
            "REDIS_URL": self.redis.url,
            "EXTRA_APPS": "scripts.chaos",
            journal.FOLDER: str(self.journal),
            "LEASE_SECONDS": f"{LEASE_SECONDS:g}",
            "STOP_GRACE_SECONDS": f"{GRACE_SECONDS:g}",
            "ACCESS_TOKEN_SECONDS": "86400",
            "SUBMISSIONS_PER_MINUTE": "1000000",
            "REGISTRATIONS_PER_MINUTE": "100000",
            "LOGINS_PER_MINUTE": "100000",
            "PYTHONUNBUFFERED": "1",
        }

    def _migrate(self) -> None:
        (ROOT / "staticfiles").mkdir(exist_ok=True)
        done = subprocess.run(
            [sys.executable, str(ROOT / "manage.py"), "migrate", "--verbosity", "0"],
            cwd=ROOT,
            env=self.environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise SetupError(f"migrate failed: {done.stderr[-1000:]}")

    def _table(self) -> Iterator[Member]:
        granian = [sys.executable, "-m", "granian", "--interface", "asgi", "--host", "127.0.0.1"]
        granian += ["--workers", "1", "--log-level", "error", "project.asgi:application"]
        manage = [sys.executable, str(self.manage)]
        work = [*manage, "work", "--processes", "1", "--threads", str(THREADS)]
        commands = {"dispatcher": [*manage, "dispatch"], "worker": work}
        shared = self.environment()
        for name, port in zip(MEMBERS, (self.port, self.other_port), strict=False):
            commands[name] = [*granian, "--port", str(port)]
        for name in MEMBERS:
            own = {
                "DATABASE_URL": through(self.postgresql.url, self.ports[f"postgresql@{name}"]),
                "RABBITMQ_URL": through(self.rabbitmq.url, self.ports[f"rabbitmq@{name}"]),
                "PGAPPNAME": name,
            }
            command = commands.get(name) or commands[name.partition("-")[0]]
            yield Member(name, command, (self.logs / name).open("ab"), shared | own)

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while True:
            answers = [readiness(port) for port in (self.port, self.other_port)]
            if all(ready for ready, _ in answers) and all(member.children for member in self.of("worker")):
                return
            if time.monotonic() > deadline:
                raise SetupError(f"The stack is not ready after {READY_SECONDS:g} s: {answers}")
            time.sleep(0.2)

    # Keeping it alive.

    def of(self, what: str) -> list[Member]:
        """The members of one sort: api, dispatcher, worker."""
        return [member for member in self.members if member.name.partition("-")[0] == what]

    def _tend_on(self) -> None:
        try:
            while not self.ended.wait(WATCH_SECONDS):
                for member in self.members:
                    self._tend(member)
        except BaseException as defect:
            self.defect = defect
            raise

    def _tend(self, member: Member) -> None:
        now = time.monotonic()
        if member.name.startswith("worker"):
            self._look_after_children(member, now)
        if member.process is not None and not member.process.alive():
            member.died = member.died or now
            if member.children and now < member.died + GRACE_SECONDS + 1:
                return  # its children were told to stop, and may take their time
            member.process.finish()
            member.process, member.died, member.not_before = None, 0.0, now + member.rest
        if member.process is None and now >= member.not_before:
            member.process = launch(member.command, environment=member.variables, output=member.log, folder=ROOT)
            member.starts += 1

    def _look_after_children(self, member: Member, now: float) -> None:
        for pid, born in tuple(member.children.items()):
            if birth(pid) != born:
                del member.children[pid]
                self.deaths.setdefault(pid, []).append(now)
        if member.process is not None:
            for pid in children(member.process.pid):
                if pid not in member.children and (born := birth(pid)):  # it may be dead, and not waited for yet
                    member.children[pid] = born

    def kill(self, member: Member, *, alone: bool = False) -> None:
        """kill -9 of it and of all that it started; `alone` leaves those to themselves. The tender buries it."""
        if member.process is not None:
            family = [] if alone else descendants(member.process.pid)
            for process in (member.process, *family):
                process.signal(signal.SIGKILL)

    def kill_children(self, member: Member) -> None:
        """kill -9 of what runs handlers."""
        for pid, born in tuple(member.children.items()):
            Process(pid, born).signal(signal.SIGKILL)

    def start_again(self, server: PrivateServer) -> None:
        """Start a server that was killed; its port may be taken for another moment."""
        deadline = time.monotonic() + PORT_SECONDS
        while True:
            try:
                server.start()
                return
            except SetupError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def wipe_broker(self) -> None:
        """RabbitMQ is killed and loses everything that it kept."""
        self.rabbitmq.kill()
        shutil.rmtree(self.rabbitmq.folder / "data", ignore_errors=True)

    @contextmanager
    def database(self) -> Iterator[psycopg.Connection]:
        """A connection past the proxy."""
        with postgresql.connect(self.postgresql.url) as connection:
            yield connection

    def heal(self) -> None:
        """Undo whatever a fault may have left behind, and wait until the servers answer."""
        for name in ("postgresql", "rabbitmq"):
            self.tell_proxy("release", name, reset=True)
            self.tell_proxy("accept", name)
        for member in self.members:
            if member.process is not None:
                with suppress(ProcessLookupError):
                    member.process.resume()
        for server in (self.postgresql, self.rabbitmq, self.redis):
            server.resume()
            self.start_again(server)
        self.rabbitmq.control.run("set_vm_memory_high_watermark", "0.4")
