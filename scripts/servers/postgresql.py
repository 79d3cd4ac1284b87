"""PostgreSQL: found where it listens by custom, given a database of our own, or started from installed programs."""

import contextlib
import getpass
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from hashlib import sha256
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote, urlsplit, urlunsplit

import psycopg
from psycopg import sql

from scripts.place import SetupError
from scripts.servers.marks import Mark
from scripts.servers.private import PrivateServer, clean_environment
from scripts.servers.process import Process

VARIABLE = "DATABASE_URL"
EXAMPLE = "postgres://user:password@host:5432/ordered_work"


WANTED = 23  # connections that the processes of one `./run up` hold at most
FULL = (
    f"PostgreSQL is there but has no free connection, and ./run up wants up to {WANTED}. End what else is connected "
    "(./run stop in other working copies), or raise max_connections."
)


class NoFreeConnection(SetupError, psycopg.OperationalError):
    """The server has as many clients as it takes: another one would be no answer to that."""


def connect(url: str, **options: Any) -> psycopg.Connection:
    """Raises NoFreeConnection, or another psycopg.Error."""
    try:
        return psycopg.connect(url, connect_timeout=5, autocommit=True, **options)
    except psycopg.OperationalError as wrong:
        if is_full(wrong):
            raise NoFreeConnection(FULL) from wrong
        raise


def is_full(wrong: Exception) -> bool:
    """Whether PostgreSQL refused for having too many clients. (A connection's error has no SQLSTATE, only words.)"""
    words = ("too many clients", "too many connections", "remaining connection slots", "connection limit exceeded")
    return any(word in str(wrong) for word in words)


def warn_when_full(url: str) -> None:
    """Prints a sentence when the server of `url` may soon have too few connections for us."""
    query = """
        SELECT current_setting('max_connections')::int, current_setting('max_connections')::int
            - current_setting('superuser_reserved_connections')::int - count(*)::int
        FROM pg_stat_activity WHERE backend_type = 'client backend'
    """
    with connect(url) as connection:
        row = connection.execute(query).fetchone()
    if row and row[1] < WANTED:
        print(
            f"PostgreSQL has {row[1]} of {row[0]} connections left, and this working copy wants up to {WANTED}: "
            "end what else is connected, or raise max_connections.",
            flush=True,
        )


def reach(url: str) -> str | None:
    """Why the PostgreSQL at `url` cannot be used; None when it can. Raises NoFreeConnection."""
    try:
        connect(url).close()
    except NoFreeConnection:
        raise
    except psycopg.Error as wrong:
        return one_line(wrong)
    return None


def answering() -> tuple[str | None, list[str]]:
    """The address of a PostgreSQL on its usual port where we may create databases, and what was tried."""
    tried: list[str] = []
    for user in dict.fromkeys(("postgres", getpass.getuser())):
        for host in ("127.0.0.1:5432", ""):  # no host: the unix socket
            url = f"postgres://{quote(user)}@{host}/postgres"
            try:
                with connect(url) as connection:
                    row = connection.execute(
                        "SELECT rolsuper OR rolcreatedb FROM pg_roles WHERE rolname = current_user"
                    ).fetchone()
                if row and row[0]:
                    return url, tried
                tried.append(f"{host or 'the unix socket'} as {user}: may not create databases")
            except NoFreeConnection:
                raise
            except psycopg.Error as wrong:
                tried.append(f"{host or 'the unix socket'} as {user}: {one_line(wrong)}")
    return None, tried


def with_database(url: str, name: str) -> str:
    """The same server and user, another database."""
    return urlunsplit(urlsplit(url)._replace(path=f"/{quote(name)}"))


def own_database(url: str, name: str) -> str:
    """The address of database `name` on the server of `url`, made if it is not there."""
    ours = with_database(url, name)
    try:
        connect(ours).close()
    except psycopg.OperationalError:
        create = sql.SQL("CREATE DATABASE {} ENCODING 'UTF8' TEMPLATE template0").format(sql.Identifier(name))
        made_meanwhile = (psycopg.errors.DuplicateDatabase, psycopg.errors.UniqueViolation)
        with server_of(url) as connection, contextlib.suppress(*made_meanwhile):
            connection.execute(create)
    return ours


def mark_database(url: str, mark: Mark) -> None:
    """Writes beside the database that `url` names whose it is."""
    name = sql.Identifier(urlsplit(url).path.strip("/"))
    with server_of(url) as connection:
        connection.execute(sql.SQL("COMMENT ON DATABASE {} IS {}").format(name, mark.text()))


def marks(url: str) -> list[Mark]:
    """Whose the databases are that working copies made on the server of `url`."""
    query = "SELECT datname, shobj_description(oid, 'pg_database') FROM pg_database WHERE starts_with(datname, %s)"
    with server_of(url) as connection:
        found = [(name, Mark.read(text)) for name, text in connection.execute(query, ["ordered_work_"])]
    return [mark for name, mark in found if mark is not None and mark.name == name]


def drop_database(url: str) -> None:
    """Removes the database that `url` names, whoever is connected to it."""
    name = urlsplit(url).path.strip("/")
    with server_of(url) as connection:
        connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


def drop_unused_database(url: str, name: str) -> bool:
    """Removes database `name` on the server of `url`; False when somebody is connected to it, or it is another's."""
    try:
        with server_of(url) as connection:
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {}").format(sql.Identifier(name)))
    except (psycopg.errors.ObjectInUse, psycopg.errors.InsufficientPrivilege):
        return False
    return True


def server_of(url: str) -> psycopg.Connection:
    """A connection to the server of `url`, in a database that is always there."""
    try:
        return connect(with_database(url, "postgres"))
    except psycopg.OperationalError:
        return connect(with_database(url, "template1"))


def one_line(wrong: Exception) -> str:
    return " ".join(str(wrong).split())


class Postgresql(PrivateServer):
    """A private PostgreSQL. As root it runs as another user, because it refuses to run as root."""

    title = "PostgreSQL"
    package = "postgresql"
    image = "postgres:17"
    stop_signal = signal.SIGINT  # "fast": ends sessions, writes everything, stops

    @classmethod
    def installed(cls) -> bool:
        return cls.program("postgres") is not None and cls.program("initdb") is not None

    @staticmethod
    def program(name: str) -> str | None:
        """Where `name` is: Debian keeps each version's programs in a folder of its own, off the PATH."""
        versions = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: _number(folder.parent.name))
        for folder in reversed(versions):
            if os.access(folder / name, os.X_OK) and (folder / "postgres").exists():
                return str(folder / name)
        return shutil.which(name)

    @property
    def url(self) -> str:
        return f"postgres://postgres:{self.password}@127.0.0.1:{self.port}/ordered_work"

    @property
    def data(self) -> Path:
        return Path(self.state["data"])

    def prepare(self) -> None:
        if self.user():
            self.folder.chmod(0o711)  # that user comes through, and lists nothing
        if "data" not in self.state:
            self.state["data"] = str(self._place())
            self.remember()
        if (self.data / "initialized").exists():
            self._remove_stale_pid()
            return
        shutil.rmtree(self.data, ignore_errors=True)  # what an interrupted start left
        self.data.mkdir(parents=True, mode=0o700)
        user = self.user()
        if user:
            shutil.chown(self.data, user)
        with tempfile.NamedTemporaryFile("w", dir=self.data.parent) as secret:
            secret.write(self.password)
            secret.flush()
            if user:
                shutil.chown(secret.name, user)
            command = ["initdb", "-D", str(self.data / "cluster"), "-U", "postgres", "-E", "UTF8"]
            command += ["--locale=C", "--auth=scram-sha-256", f"--pwfile={secret.name}", "--no-sync"]
            self.use(*command)
        (self.data / "initialized").touch()

    def use(self, program: str, *arguments: str, **variables: str) -> None:
        """Run one of PostgreSQL's programs to its end, as the server's user. Raises SetupError with what it said."""
        user = self.user()
        done = subprocess.run(
            [str(self.program(program)), *arguments],
            env=clean_environment(**variables),
            user=user,
            extra_groups=[] if user else None,
            cwd="/",
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise SetupError(f"{program} failed: {one_line(Exception(done.stderr or done.stdout))}")

    def execute(self, log: IO[bytes]) -> Process:
        command = [str(self.program("postgres")), "-D", str(self.data / "cluster"), "-p", str(self.port)]
        command += ["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", "-c", "max_connections=300"]
        return self.spawn(command, log, clean_environment(), user=self.user())

    def answers(self) -> bool:
        try:
            own_database(self.url, "ordered_work")
        except psycopg.Error:
            return False
        return True

    @staticmethod
    def user() -> str | None:
        """Who runs it: ourselves, or where we are root somebody who may do less."""
        if os.geteuid() != 0:
            return None
        known = {entry.pw_name for entry in pwd.getpwall()}
        return "postgres" if "postgres" in known else "nobody"

    def _place(self) -> Path:
        """The data's folder: here, or where that user cannot come here (a working copy below /root), beside."""
        if not self.user() or all(parent.stat().st_mode & 0o001 for parent in self.folder.resolve().parents):
            return self.folder / "data"
        name = f"ordered-work-{sha256(str(self.folder).encode()).hexdigest()[:12]}"
        return Path("/var/tmp") / name  # noqa: S108  (its owner and mode are set)

    def _remove_stale_pid(self) -> None:
        """After a crash another program may have got the old number; PostgreSQL would take it for itself."""
        path = self.data / "cluster" / "postmaster.pid"
        with contextlib.suppress(OSError, ValueError):
            pid = int(path.read_text().split()[0])
            if Path(f"/proc/{pid}/comm").read_text().strip() not in ("postgres", "postmaster"):
                path.unlink()

    def remove(self) -> None:
        super().remove()
        if "data" in self.state:
            shutil.rmtree(self.data, ignore_errors=True)


def _number(version: str) -> float:
    try:
        return float(version)
    except ValueError:
        return 0
