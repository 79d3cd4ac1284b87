"""The one way to Redis. What is kept there may be lost, so every call may fail: quickly, and always in the same way.

    call("GET", key)            -> the reply, as bytes, int, list or None
    Script(lua)(keys, args)     -> the reply of an atomic script
    hint(channel, message)      -> publishes; never raises

A call waits at most `TIMEOUT` seconds. After one failed, nobody asks for `PAUSE` seconds (RedisUnavailable at once);
then one caller tries again. So a dead or hanging Redis costs a process 0.25 s a second, in one thread.
Pub/sub channels are common to all databases of a server: put settings.ENV.queue_prefix before their names.
"""

import hashlib
import os
import threading
import time
from typing import Any

import redis
import structlog
from django.conf import settings

TIMEOUT = 0.25
PAUSE = 1.0

log = structlog.get_logger(__name__)


class RedisUnavailable(Exception):
    """Redis is down, hangs or refuses. Go on without it."""


def call(*command: Any, probe: bool = True) -> Any:
    """One command, one round trip. Raises RedisUnavailable; a wrong command raises redis.ResponseError.

    `probe=False` leaves it to others to try whether Redis is back.
    """
    _breaker.enter(probe)
    try:
        reply = _connection.ask(command)
    except redis.ResponseError as refused:
        if isinstance(refused, SERVER_NOT_READY):
            raise _breaker.failed(refused) from refused
        _breaker.succeeded()
        raise
    except (redis.RedisError, OSError) as failure:
        raise _breaker.failed(failure) from failure
    _breaker.succeeded()
    return reply


def hint(channel: str, message: str = "") -> bool:
    """Publishes `message`; whether Redis took it. Never raises, never blocks longer than TIMEOUT."""
    try:
        call("PUBLISH", channel, message)
    except (RedisUnavailable, redis.RedisError):
        return False
    return True


class Script:
    """A Lua script that runs atomically, sent by its hash and in full only where the server has not seen it."""

    def __init__(self, lua: str) -> None:
        self.lua = lua
        self.sha = hashlib.sha1(lua.encode(), usedforsecurity=False).hexdigest()

    def __call__(self, keys: list[str], args: list[Any], *, probe: bool = True) -> Any:
        try:
            return call("EVALSHA", self.sha, len(keys), *keys, *args, probe=probe)
        except redis.exceptions.NoScriptError:
            return call("EVAL", self.lua, len(keys), *keys, *args, probe=probe)


SERVER_NOT_READY = (
    redis.exceptions.ReadOnlyError,
    redis.exceptions.OutOfMemoryError,
    redis.exceptions.ClusterDownError,
)


class _Breaker:
    """Open after a failure; then lets one caller a PAUSE through, until one succeeds."""

    def __init__(self) -> None:
        self.closed = True
        self.next_try = 0.0
        self.lock = threading.Lock()

    def enter(self, probe: bool) -> None:
        if self.closed:
            return
        with self.lock:
            now = time.monotonic()
            if now < self.next_try or not probe:
                raise RedisUnavailable("Redis did not answer a moment ago")
            self.next_try = now + PAUSE

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
        fresh = connection._sock is None
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
        pool = redis.ConnectionPool.from_url(
            settings.ENV.redis_url,
            socket_timeout=TIMEOUT,
            socket_connect_timeout=TIMEOUT,
            retry=None,
            protocol=2,
        )
        return pool.make_connection()


_breaker = _Breaker()
_connection = _Connection()
