"""Redis: found where it listens by custom, given an empty database number of our own, or started privately."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import islice
from typing import IO, Literal
from urllib.parse import urlsplit, urlunsplit

import redis

from scripts.servers.marks import Mark
from scripts.servers.private import PrivateServer, clean_environment
from scripts.servers.process import Process

VARIABLE = "REDIS_URL"
EXAMPLE = "redis://:password@host:6379/0"
CUSTOM = "redis://127.0.0.1:6379/0"
Error = redis.RedisError
MARK = "ordered-work:owner"
SHARERS = "ordered-work:sharers"  # a hash: the prefixes under which others keep their keys there, and whose they are


def connect(url: str) -> "redis.Redis":
    return redis.Redis.from_url(url, socket_connect_timeout=5, socket_timeout=5, decode_responses=True)


def reach(url: str) -> str | None:
    """Why the Redis at `url` cannot be used; None when it can."""
    try:
        with connect(url) as client:
            client.ping()
    except (redis.RedisError, OSError) as wrong:
        return str(wrong)
    return None


def answering() -> tuple[str | None, list[str]]:
    """The address of a Redis on its usual port, and what was tried."""
    wrong = reach(CUSTOM)
    return (None, [f"127.0.0.1:6379: {wrong}"]) if wrong else (CUSTOM, [])


def with_number(url: str, number: int) -> str:
    """The same server, another database number."""
    return urlunsplit(urlsplit(url)._replace(path=f"/{number}"))


def place(url: str, mark: Mark) -> tuple[str, str]:
    """The address of our number and the prefix of our keys there: none in a number that is ours alone."""
    shared = shared_before(url, mark)
    if shared:
        return shared
    number = own_number(url, mark)
    return (number, "") if number else shared_number(url, mark)


def own_number(url: str, mark: Mark) -> str | None:
    """The address of the first database number that carries `mark`, else of the first that is empty.

    The mark is a key. Empty means also that no client is connected to it, so that somebody whose
    data was just flushed keeps it.
    None when all fifteen are somebody's.
    """
    empty = []
    busy = numbers_in_use(url)
    for number, found in numbers(url):
        if isinstance(found, Mark) and found.name == mark.name:
            with connect(with_number(url, number)) as client:
                client.set(MARK, mark.text())  # an earlier release may have written it
            return with_number(url, number)
        if found is None and number not in busy:
            empty.append(number)
    for number in empty:
        with connect(with_number(url, number)) as client:
            if client.set(MARK, mark.text(), nx=True):
                return with_number(url, number)
    return None


def numbers(url: str) -> Iterator[tuple[int, "Mark | Literal['foreign'] | None"]]:
    """The numbers from 1 to 15 that the server has: whose each is; None: it is empty."""
    for number in range(1, 16):
        try:
            with connect(with_number(url, number)) as client:
                mark = Mark.read(client.get(MARK))
                yield number, mark or ("foreign" if client.dbsize() else None)
        except redis.ResponseError:  # a server with fewer numbers, or MARK is no string there
            continue


def shared_before(url: str, mark: Mark) -> tuple[str, str] | None:
    """What `shared_number` gave already: it stays ours, also when a number of our own becomes free meanwhile."""
    prefix = f"{mark.name}:"
    for number in range(16):
        with suppress(redis.ResponseError), connect(with_number(url, number)) as client:
            if client.hexists(SHARERS, prefix):
                return with_number(url, number), prefix
    return None


def shared_number(url: str, mark: Mark) -> tuple[str, str]:
    """Where no number is free: the address of one that is a working copy's, and the prefix that our keys have there."""
    theirs = [number for number, found in numbers(url) if isinstance(found, Mark)]
    ours = with_number(url, theirs[-1]) if theirs else url
    prefix = f"{mark.name}:"
    with connect(ours) as client:
        client.hset(SHARERS, prefix, mark.text())
    return ours, prefix


def numbers_in_use(url: str) -> set[int]:
    """The numbers that clients are connected to right now, as far as we may know."""
    try:
        with connect(url) as client:
            return {int(entry["db"]) for entry in client.client_list()}
    except redis.ResponseError:
        return set()


def give_back(url: str, prefix: str = "") -> None:
    """Empties the number that `url` names of what is ours: the keys under `prefix`, or all but those of its sharers."""
    with connect(url) as client:
        if prefix:
            client.hdel(SHARERS, prefix)
            remove(client, lambda key: key.startswith(prefix))
        elif sharers := (*client.hkeys(SHARERS), SHARERS):
            remove(client, lambda key: not key.startswith(sharers))


def remove(client: "redis.Redis", ours: Callable[[str], bool]) -> None:
    for keys in batched(filter(ours, client.scan_iter(count=1000)), 1000):
        client.unlink(*keys)


def batched(keys: Iterator[str], size: int) -> Iterator[list[str]]:
    while some := list(islice(keys, size)):
        yield some


class Redis(PrivateServer):
    """A private Redis; it keeps nothing on disk."""

    title = "Redis"
    package = "redis-server"
    image = "redis:7"

    @classmethod
    def installed(cls) -> bool:
        return cls.program() is not None

    @staticmethod
    def program() -> str | None:
        return shutil.which("redis-server") or shutil.which("valkey-server")

    @property
    def url(self) -> str:
        return f"redis://:{self.password}@127.0.0.1:{self.port}/0"

    def prepare(self) -> None:
        lines = [f"port {self.port}", "bind 127.0.0.1", f"requirepass {self.password}", 'save ""', "appendonly no"]
        self.keep_secret("redis.conf", "\n".join([*lines, f'dir "{self.folder}"']) + "\n")

    def execute(self, log: IO[bytes]) -> Process:
        return self.spawn([str(self.program()), str(self.folder / "redis.conf")], log, clean_environment())

    def answers(self) -> bool:
        return reach(self.url) is None
