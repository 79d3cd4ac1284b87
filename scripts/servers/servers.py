"""PostgreSQL, RabbitMQ and Redis for one purpose: named by the environment, found on this machine, or started.

Whatever is found is only borrowed: each purpose gets a database, a virtual host and a Redis number of its own.
"""

import contextlib
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import ModuleType
from urllib.parse import urlsplit

import psycopg

from scripts.place import LOCAL, OWN_NAME, SetupError, lock, write_state
from scripts.servers import docker, packages, postgresql, rabbitmq, redis
from scripts.servers.docker import Container
from scripts.servers.found import Found
from scripts.servers.marks import Mark
from scripts.servers.postgresql import Postgresql
from scripts.servers.private import PrivateServer
from scripts.servers.rabbitmq import Rabbitmq
from scripts.servers.reclaim import reclaim
from scripts.servers.redis import Redis

KINDS: tuple[tuple[ModuleType, type[PrivateServer]], ...] = (
    (postgresql, Postgresql),
    (rabbitmq, Rabbitmq),
    (redis, Redis),
)
OWN_PLACE = LOCAL / "place"  # what this working copy has on servers that go on without it
FOLDERS = {"PostgreSQL": "postgresql", "RabbitMQ": "rabbitmq", "Redis": "redis"}


@dataclass(frozen=True)
class Servers:
    """Addresses as the settings read them."""

    database_url: str
    rabbitmq_url: str
    redis_url: str
    queue_prefix: str = ""
    redis_prefix: str = ""

    def environment(self) -> dict[str, str]:
        """The variables that tell a process of the project where its servers are."""
        return {
            "DATABASE_URL": self.database_url,
            "RABBITMQ_URL": self.rabbitmq_url,
            "REDIS_URL": self.redis_url,
            "QUEUE_PREFIX": self.queue_prefix,
            "REDIS_PREFIX": self.redis_prefix,
        }


@dataclass
class Search:
    """One look for the three, with what was tried on the way, so that a failure can tell."""

    folder: Path
    guarded: bool
    own_vhost: str | None = None
    tried: dict[str, list[str]] = field(default_factory=dict)

    def all(self) -> list[Found]:
        found = {server.title: self.named_or_answering(module, server) for module, server in KINDS}
        missing = [server for _, server in KINDS if found[server.title] is None]
        private = self.private(missing)
        return [found[server.title] or private[server.title] for _, server in KINDS]

    def named_or_answering(self, module: ModuleType, server: type[PrivateServer]) -> Found | None:
        """Where the environment says, else where it answers by custom. Raises SetupError when that one is down."""
        tried = self.tried.setdefault(server.title, [])
        if os.environ.get("SERVERS") == "private":
            tried.append("SERVERS=private: no look at running servers")
            return None
        named = os.environ.get(module.VARIABLE)
        if named:
            wrong = unreachable(module, named)
            if wrong:
                raise SetupError(
                    f"{server.title} does not answer where {module.VARIABLE} says ({without_password(named)}): {wrong}."
                    f" Start it, correct {module.VARIABLE} ({module.EXAMPLE}), or unset it: one is then found."
                )
            return Found(server.title, named, named=True)
        url, why = module.answering()
        tried += [f"{module.VARIABLE} is not set", *why]
        if url and server is Rabbitmq and self.own_vhost and not self.vhost_possible(url):
            tried.append("127.0.0.1:5672 answers, but no virtual host can be made there")
            return None if Rabbitmq.installed() else Found(server.title, url)
        return Found(server.title, url) if url else None

    def vhost_possible(self, url: str) -> bool:
        return bool(self.own_vhost and rabbitmq.own_vhost(url, self.own_vhost))

    def private(self, missing: list[type[PrivateServer]]) -> dict[str, Found]:
        """Starts all that are missing at once: from installed programs, after apt-get, or else through Docker."""
        absent = [server for server in missing if not server.installed()]
        if absent:
            why = packages.why_not() or packages.install(*(server.package for server in absent))
            for server in absent:
                self.tried[server.title] += ["no program of it is installed", f"apt-get: {why}"]
        containers = {server.title: self.container(server) for server in absent if not server.installed()}
        ours = [
            server(self.folder / FOLDERS[server.title], guarded=self.guarded)
            for server in missing
            if server.title not in containers
        ]
        for one in ours:
            if one.running() and not one.answers() and not one.answers():
                one.stop()  # it was left here sick
        begun = [one for one in ours if not one.running()]  # one that runs already may be somebody's
        try:
            for one in begun:
                one.launch()
            for one in ours:
                one.wait()
        except BaseException:
            for one in begun:
                one.kill()
            raise
        return containers | {one.title: Found(one.title, one.url, private=one) for one in ours}

    def container(self, server: type[PrivateServer]) -> Found:
        why = docker.why_not()
        if why:
            module = next(module for module, kind in KINDS if kind is server)
            looked = "; ".join([*self.tried[server.title], f"Docker: {why}"])
            raise SetupError(
                f"{server.title} is missing. Looked for it: {looked}. To get it: install the package {server.package}, "
                f"or set {module.VARIABLE}={module.EXAMPLE}."
            )
        container = Container(server.title, server.image, self.folder / FOLDERS[server.title]).start()
        return Found(server.title, container.url, private=container)


def find() -> Servers:
    """The three servers for `./run up`: what the environment names as it is, else a place of ours on what is found.

    Servers started for it stay until the last run here ends. What places were made is written down, for ./run clean.
    Raises SetupError: which server is missing, where it was looked for and how to get it.
    """
    with lock("servers"):
        found = Search(LOCAL, guarded=False).all()
        ours = places(found, OWN_NAME, as_named=True)
        lasting = [one.title for one in found if not one.private and not one.named]
        write_state(OWN_PLACE / "places.json", {**asdict(ours), "lasting": lasting, "private": []})
        return ours


def places(found: list[Found], name: str, *, as_named: bool) -> Servers:
    """A database, a virtual host and a Redis number called `name`, on what was found.

    `as_named`: where the environment names a server, the very place that it names.
    """
    database, broker, cache = found
    for sentence in reclaim(found):
        print(sentence, flush=True)
    mark = Mark.of_this_copy(name)
    if database.named and as_named:
        database_url = database.url
    else:
        try:
            database_url = postgresql.own_database(database.url, name)
            postgresql.mark_database(database_url, mark)
        except psycopg.Error as wrong:
            raise SetupError(f"PostgreSQL: the database {name} cannot be made: {postgresql.one_line(wrong)}.") from None
    prefix = os.environ.get("QUEUE_PREFIX", "") if as_named else ""
    if broker.named and as_named:
        rabbitmq_url = broker.url
    else:
        own = rabbitmq.own_vhost(broker.url, name, broker.control)
        rabbitmq_url, prefix = (own, "") if own else (broker.url, prefix or f"{name}.")
    redis_prefix = os.environ.get("REDIS_PREFIX", "") if as_named else ""
    if cache.named and as_named:
        redis_url = cache.url
    else:
        redis_url, redis_prefix = redis.place(cache.url, mark)
    return Servers(database_url, rabbitmq_url, redis_url, prefix, redis_prefix)


def kept() -> list[PrivateServer | Container]:
    """The servers that were started in this working copy and still run."""
    return [one for one in started() if one.running()]


def started() -> list[PrivateServer | Container]:
    """All that were ever started in this working copy, or may have been."""
    ours: list[PrivateServer | Container] = []
    for _, server in KINDS:
        folder = LOCAL / FOLDERS[server.title]
        ours += [server(folder, guarded=False), Container(server.title, server.image, folder)]
    return ours


def stop() -> list[str]:
    """Ends them; says which."""
    with lock("servers"):
        running = kept()
        for one in running:
            one.stop()
    return [one.title for one in running]


def remove() -> None:
    """Ends them and removes their data, wherever that is."""
    with lock("servers"):
        for one in started():
            one.remove()


def unreachable(module: ModuleType, url: str) -> str | None:
    """Why the server that the environment names cannot be used; for PostgreSQL its database may still be missing."""
    try:
        wrong: str | None = module.reach(url)
    except ValueError as unreadable:
        return f"no such address ({unreadable})"
    if wrong and module is postgresql and "does not exist" in wrong:
        with contextlib.suppress(psycopg.Error):
            postgresql.own_database(url, urlsplit(url).path.strip("/"))
            return None
    return wrong


def without_password(url: str) -> str:
    """`url` as it may be shown."""
    parts = urlsplit(url)
    return url.replace(f":{parts.password}@", ":..@") if parts.password else url
