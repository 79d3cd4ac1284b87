"""The one way to Redis. What is kept there may be lost, so every call may fail: quickly, and always in the same way.

    call("GET", key)            -> the reply, as bytes, int, list or None
    Script(lua)(keys, args)     -> the reply of an atomic script
    hint(channel, message)      -> publishes; never raises
    own(name)                   -> `name` as this installation's: what every key and channel is called by
    Subscription(channels)      -> what others publish
    check_redis()               -> whether everything that is done there can be done now

All of them raise RedisUnavailable and nothing else, whatever is wrong: no answer within `TIMEOUT` seconds, or an answer
that is none (a full memory, too few replicas, a read-only replica, no permission, loading ..). After one failed, nobody
asks for `PAUSE` seconds (RedisUnavailable at once); then one caller a PAUSE tries everything that is done there, until
that succeeds. So a dead, hanging or refusing Redis costs a process 0.25 s a second, in one thread.

What Redis refuses because the command itself is wrong (WRONGTYPE, ERR) is a fault of ours or of whoever wrote the key.
It is logged once as an error, that call goes on without Redis, and all others with it.
Pub/sub channels are common to all databases of a server: queues/notify/hints.py says the database's name in theirs.
"""

import hashlib
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any

import redis
import structlog
from django.conf import settings

TIMEOUT = 0.25
PAUSE = 1.0
REPORTED = 100  # faults of ours that are remembered as logged

log = structlog.get_logger(__name__)
_leaves_probing: ContextVar[bool] = ContextVar("leaves probing to others", default=False)


class RedisUnavailable(Exception):
    """Redis is down, hangs or refuses. Go on without it."""


class _UnknownScript(RedisUnavailable):
    """The server has not seen this script."""


def own(name: str) -> str:
    """The key or channel of that name, where others may have their own on the same server."""
    return f"{settings.ENV.redis_prefix}{name}"


def call(*command: Any, probe: bool = True) -> Any:
    """One command, one round trip. Raises RedisUnavailable.

    `probe=False` leaves it to others to try whether Redis is back.
    """
    _breaker.enter(probe)
    with _one_error(str(command[0])):
        return _connection.ask(command)


def leave_probing_to_others() -> None:
    """The caller's thread, for which others wait, does not try whether Redis is back."""
    _leaves_probing.set(True)


def hint(channel: str, message: str = "") -> bool:
    """Publishes `message`; whether Redis took it. Never raises, never blocks longer than TIMEOUT."""
    try:
        call("PUBLISH", channel, message)
    except RedisUnavailable:
        return False
    return True


class Script:
    """A Lua script that runs atomically, sent by its hash and in full only where the server has not seen it."""

    def __init__(self, lua: str) -> None:
        self.lua = lua
        self.sha = hashlib.sha1(lua.encode(), usedforsecurity=False).hexdigest()

    def __call__(self, keys: list[str], args: list[Any], *, probe: bool = True) -> Any:
        """Its reply. Raises RedisUnavailable."""
        try:
            return call("EVALSHA", self.sha, len(keys), *keys, *args, probe=probe)
        except _UnknownScript:
            return call("EVAL", self.lua, len(keys), *keys, *args, probe=probe)


class Subscription:
    """What is published on `channels`, from now on, over a connection of its own. Raises RedisUnavailable."""

    def __init__(self, channels: list[str]) -> None:
        with _one_error("SUBSCRIBE", breaks=False):
            self._pubsub = redis.client.PubSub(_pool(**_NOTICED))
            self._pubsub.subscribe(*channels)

    def hear(self, seconds: float) -> list[str]:
        """The messages that are there, waiting at most so many seconds for the first. Raises RedisUnavailable."""
        heard: list[str] = []
        with _one_error("SUBSCRIBE", breaks=False):
            until = time.monotonic() + seconds
            while (left := 0.0 if heard else until - time.monotonic()) >= 0:
                message = self._pubsub.get_message(ignore_subscribe_messages=True, timeout=left)
                if message is not None:
                    heard.append(message["data"].decode(errors="replace"))
                elif heard:
                    break
        return heard

    def close(self) -> None:
        """Let go of the connection. Never raises."""
        with suppress(redis.RedisError, OSError):
            self._pubsub.close()


def check_redis() -> None:
    """Does once everything that is done in Redis: reading, writing, counting, publishing. Raises RedisUnavailable."""
    database = settings.DATABASES["default"]["NAME"]
    prefix = settings.ENV.queue_prefix
    channel = own(f"{prefix}{database}:check")
    keys = [
        own(f"{prefix}limit:check"),
        own("final:check"),
        own("progress:check"),
        own(f"{prefix}worker:check"),
        channel,
    ]
    with _one_error("check"):
        _connection.ask(("EVAL", _EVERYTHING, len(keys), *keys, channel))
    _breaker.succeeded()


# A key of each sort and every command, since permissions may be granted for some of them alone.
_EVERYTHING = """
redis.call('TIME')
for _, key in ipairs(KEYS) do
  redis.call('SET', key, '', 'EX', 10)  -- first: once a script has written, a full memory lets it go on
  redis.call('MGET', key)
  redis.call('DEL', key)
  redis.call('HSET', key, 'n', 1)
  redis.call('HINCRBY', key, 'n', 1)
  redis.call('EXPIRE', key, 10)
  redis.call('EXISTS', key)
  redis.call('HGET', key, 'n')
  redis.call('HMGET', key, 'n')
  redis.call('HGETALL', key)
  redis.call('HDEL', key, 'n')
end
redis.call('PUBLISH', ARGV[1], '')
"""


@contextmanager
def _one_error(command: str, *, breaks: bool = True) -> Iterator[None]:
    """Raises RedisUnavailable for whatever goes wrong inside; with `breaks` others leave Redis alone for a while."""
    try:
        yield
    except redis.exceptions.NoScriptError as unknown:
        raise _UnknownScript(str(unknown)) from unknown
    except (redis.RedisError, OSError) as failure:
        if _is_ours(failure):
            _report(command, failure)
            raise RedisUnavailable(str(failure)) from failure
        raise (_breaker.failed(failure) if breaks else RedisUnavailable(str(failure))) from failure


def _is_ours(failure: Exception) -> bool:
    """Whether the command is wrong, and not the server unable or unwilling."""
    if isinstance(failure, redis.DataError):  # it was not even sent
        return True
    if not isinstance(failure, redis.ResponseError):
        return False
    code = getattr(failure, "status_code", None) or str(failure).partition(" ")[0]
    # A script without a permission is refused with ERR: "ACL failure in script".
    return code in ("WRONGTYPE", "ERR") and "ACL failure" not in str(failure)


_reported: set[tuple[str, str]] = set()


def _report(command: str, failure: Exception) -> None:
    """Log it, the first time."""
    what = command.removesuffix("SHA"), str(failure)[:40]
    if what not in _reported and len(_reported) < REPORTED:
        _reported.add(what)
        log.error("redis_refused_a_command", command=command, error=str(failure)[:300])


class _Breaker:
    """Open after a failure; then lets one caller a PAUSE through, who checks everything, until that succeeds."""

    def __init__(self) -> None:
        self.closed = True
        self.next_try = 0.0
        self.lock = threading.Lock()

    def enter(self, probe: bool) -> None:
        if self.closed:
            return
        with self.lock:
            now = time.monotonic()
            if now < self.next_try or not probe or _leaves_probing.get():
                raise RedisUnavailable("Redis did not answer a moment ago")
            self.next_try = now + PAUSE
        check_redis()  # who only reads would find a Redis well that nobody can write to

    def succeeded(self) -> None:
        if not self.closed:
            self.closed = True
            log.info("redis_is_back")

    def failed(self, failure: Exception) -> RedisUnavailable:
        if self.closed:
            log.warning("redis_unavailable", error=str(failure))
        self.next_try = time.monotonic() + PAUSE
        self.closed = False
        return RedisUnavailable(str(failure))


class _Connection(threading.local):
    """One connection a thread: half the CPU time of a pool's, and no lock.

    `asking` is left set by whatever interrupts a call (a time limit raised in the thread): the reply that is still
    under way would answer the next call, so that one starts on a new connection.
    """

    def __init__(self) -> None:
        self.connection: Any = None
        self.pid = 0
        self.asking = False

    def ask(self, command: tuple[Any, ...]) -> Any:
        if self.pid != os.getpid():
            self.connection, self.pid = self.open(), os.getpid()
        elif self.asking:
            self.connection.disconnect()
        self.asking = True
        try:
            reply = self.exchange(command)
        except redis.ResponseError:
            self.asking = False
            raise
        self.asking = False
        return reply

    def exchange(self, command: tuple[Any, ...]) -> Any:
        connection = self.connection
        fresh = not connection.is_connected
        try:
            connection.send_command(*command, check_health=False)
            return connection.read_response()
        except (redis.ConnectionError, OSError) as failure:
            connection.disconnect()
            if fresh or isinstance(failure, redis.TimeoutError | TimeoutError):
                raise
        # A kept connection that the server closed meanwhile (restart, idle timeout): once more on a new one.
        connection.send_command(*command, check_health=False)
        return connection.read_response()

    def open(self) -> Any:
        return _pool().make_connection()


# A subscriber sends nothing, so the kernel looks whether the server is still there.
_NOTICED = {
    "socket_keepalive": True,
    "socket_keepalive_options": {
        getattr(socket, name): value
        for name, value in {"TCP_KEEPIDLE": 5, "TCP_KEEPINTVL": 2, "TCP_KEEPCNT": 3}.items()
        if hasattr(socket, name)
    },
}


def _pool(**more: Any) -> redis.ConnectionPool:
    return redis.ConnectionPool.from_url(
        settings.ENV.redis_url,
        socket_timeout=TIMEOUT,
        socket_connect_timeout=TIMEOUT,
        retry=None,
        protocol=2,
        **more,
    )


_breaker = _Breaker()
_connection = _Connection()
