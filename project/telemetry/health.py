"""Whether the service works: GET /health/live (liveness: this process answers), /health/ready (all it needs does).

`status` is `ok`, `degraded` (200: Redis, RabbitMQ, a dispatcher or all workers are missing, work waits and nothing
begins, or a queue is blocked; requests are accepted and kept) or `down` (503: PostgreSQL or its schema is missing).
Each check is `ok`, `down` or `timeout`; the log says why. Apps add their own (`register`). The checks run beside each
other and are repeated after CACHED seconds at the earliest, so that probes cost nothing.
"""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as TookTooLong
from functools import cache
from typing import NamedTuple

import orjson
import structlog
from django.db import DatabaseError, InterfaceError, connection
from django.db.migrations.loader import MigrationLoader
from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_safe

from project.redis import RedisUnavailable, check_redis

CACHED = 1.0
TIMEOUT = 2.0
NEEDED = ("postgresql", "migrations")

log = structlog.get_logger(__name__)


@require_safe
def live(request: HttpRequest) -> HttpResponse:
    return answer("ok", {})


@require_safe
def ready(request: HttpRequest) -> HttpResponse:
    found = checks()
    if any(found[name] != "ok" for name in NEEDED):
        return answer("down", found, 503)
    return answer("ok" if set(found.values()) == {"ok"} else "degraded", found)


def checks() -> dict[str, str]:
    """What each check found, at most CACHED seconds ago."""
    return _recent.checks()


def answer(status: str, checks: dict[str, str], code: int = 200) -> HttpResponse:
    headers = {"Cache-Control": "no-store"} | ({"Retry-After": "2"} if code == 503 else {})
    return HttpResponse(orjson.dumps({"status": status, "checks": checks}), "application/json", code, headers=headers)


class _Recent:
    """The newest results, and the threads that fetch new ones: one that hangs holds up no other."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.results: dict[str, str] = {}
        self.at = float("-inf")
        self.threads: dict[str, ThreadPoolExecutor] = {}

    def checks(self) -> dict[str, str]:
        with self.lock:
            if time.monotonic() - self.at > CACHED:
                self.results = self.fetch()
                self.at = time.monotonic()
            return self.results

    def fetch(self) -> dict[str, str]:
        started = [(checked, self.thread(checked.names[0]).submit(checked.check)) for checked in _beside()]
        deadline = time.monotonic() + TIMEOUT
        found: dict[str, str] = {}
        for checked, future in started:
            found |= self.outcome(checked.names, future, deadline)
        return found

    def thread(self, name: str) -> ThreadPoolExecutor:
        if name not in self.threads:
            self.threads[name] = ThreadPoolExecutor(1, f"health-{name}")
        return self.threads[name]

    def outcome(self, names: tuple[str, ...], future: "Future[dict[str, str]]", deadline: float) -> dict[str, str]:
        try:
            return future.result(max(0.0, deadline - time.monotonic()))
        except TookTooLong:
            future.cancel()
            return dict.fromkeys(names, "timeout")
        except Exception as failure:  # what a check cannot do is its answer
            log.warning("check_failed", check=names[0], error=f"{type(failure).__name__}: {failure}"[:300])
            return dict.fromkeys(names, "down")


class Checked(NamedTuple):
    """What one check finds; the names are those of its answer."""

    names: tuple[str, ...]
    check: Callable[[], dict[str, str]]


_registered: list[Checked] = []
_registered_in_database: list[Checked] = []


def register(*names: str, check: Callable[[], dict[str, str]], in_database: bool = False) -> None:
    """An app's check, from its `ready()`: what `check` answers for each of the names. An exception means `down`.

    It runs in a thread of its own; with `in_database`, on the connection of the check of PostgreSQL, after that.
    """
    (_registered_in_database if in_database else _registered).append(Checked(names, check))


def _beside() -> list[Checked]:
    in_postgresql = [name for checked in _registered_in_database for name in checked.names]
    ours = [Checked(("postgresql", "migrations", *in_postgresql), in_database), Checked(("redis",), redis)]
    return ours + _registered


def in_database() -> dict[str, str]:
    """PostgreSQL itself, its schema, and what apps look for in it, on this thread's own connection."""
    found: dict[str, str] = {"postgresql": "ok"}
    try:
        connection.close_if_unusable_or_obsolete()
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        schema = migrations()
        found["migrations"] = schema
        for checked in _registered_in_database:
            found |= checked.check() if schema == "ok" else dict.fromkeys(checked.names, "down")
        return found
    except (DatabaseError, InterfaceError):
        connection.close()
        raise


def migrations() -> str:
    with connection.cursor() as cursor:
        cursor.execute("SELECT to_regclass('django_migrations') IS NOT NULL")
        if not cursor.fetchone()[0]:
            return "down"
        cursor.execute("SELECT app, name FROM django_migrations")
        return "ok" if shipped_migrations() <= set(cursor.fetchall()) else "down"


@cache
def shipped_migrations() -> frozenset[tuple[str, str]]:
    return frozenset(MigrationLoader(None).disk_migrations)


def redis() -> dict[str, str]:
    try:
        check_redis()
    except RedisUnavailable as failure:
        log.warning("check_failed", check="redis", error=str(failure)[:300])
        return {"redis": "down"}
    return {"redis": "ok"}


_recent = _Recent()
