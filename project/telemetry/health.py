"""Whether the service works: GET /health/live (this process answers) and /health/ready (all it needs does).

`status` is `ok`, `degraded` (200: Redis, RabbitMQ, a dispatcher or all workers are missing, work waits and nothing
moves, or a queue is blocked; requests are accepted and kept) or `down`
(503: PostgreSQL or its schema is missing). Each check is `ok`, `down` or `timeout`; the log says why. The checks run
beside each other and are repeated after CACHED seconds at the earliest, so that probes cost nothing.
"""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as TookTooLong
from functools import cache

import orjson
import structlog
from django.conf import settings
from django.db import DatabaseError, InterfaceError, connection
from django.db.migrations.loader import MigrationLoader
from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_safe

from project.redis import RedisUnavailable, check_redis

CACHED = 1.0
TIMEOUT = 2.0
SILENT_SECONDS = 10.0  # a leader is succeeded within 5
NEEDED = ("postgresql", "migrations")
CHECKS = ("postgresql", "rabbitmq", "redis", "migrations", "dispatcher", "workers", "queues")
IN_DATABASE = ("postgresql", "migrations", "dispatcher", "workers", "queues")

log = structlog.get_logger(__name__)


@require_safe
def live(request: HttpRequest) -> HttpResponse:  # noqa: ARG001
    return answer("ok", {})


@require_safe
def ready(request: HttpRequest) -> HttpResponse:  # noqa: ARG001
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
    """The newest results, and the three threads that fetch new ones: one that hangs holds up no other."""

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
        started = {check: self.thread(check.__name__).submit(check) for check in (in_database, rabbitmq, redis)}
        deadline = time.monotonic() + TIMEOUT
        found: dict[str, str] = {}
        for check, future in started.items():
            found |= self.outcome(check, future, deadline)
        return {name: found[name] for name in CHECKS}

    def thread(self, name: str) -> ThreadPoolExecutor:
        if name not in self.threads:
            self.threads[name] = ThreadPoolExecutor(1, f"health-{name}")
        return self.threads[name]

    def outcome(self, check: "Check", future: "Future[dict[str, str]]", deadline: float) -> dict[str, str]:
        names = IN_DATABASE if check is in_database else (check.__name__,)
        try:
            return future.result(max(0.0, deadline - time.monotonic()))
        except TookTooLong:
            future.cancel()
            return dict.fromkeys(names, "timeout")
        except Exception as failure:  # what a check cannot do is its answer
            log.warning("check_failed", check=check.__name__, error=f"{type(failure).__name__}: {failure}"[:300])
            return dict.fromkeys(names, "down")


Check = Callable[[], dict[str, str]]


def in_database() -> dict[str, str]:
    """PostgreSQL itself, its schema, and who leads the shards, on this thread's own connection."""
    try:
        connection.close_if_unusable_or_obsolete()
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        schema = migrations()
        if schema != "ok":
            return {**dict.fromkeys(IN_DATABASE, "down"), "postgresql": "ok"}
        return {"postgresql": "ok", "migrations": schema, "dispatcher": dispatcher(), **moving()}
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


def dispatcher() -> str:
    """Whether the leader of every shard has lately shown that it makes progress."""
    from queues.lifecycle import leadership

    silent = leadership.last_sign(settings.ENV.dispatch_shards)
    return "ok" if silent is not None and silent <= SILENT_SECONDS else "down"


def moving() -> dict[str, str]:
    """Whether a worker gave a sign lately, and whether what waits goes on: no queue is stuck or blocked."""
    from project.telemetry.metrics import standing_now

    now = standing_now()
    return {"workers": "ok" if now.workers else "down", "queues": "ok" if now.moves else "down"}


def rabbitmq() -> dict[str, str]:
    from processing.broker import rabbitmq as broker

    broker.ping(TIMEOUT)
    return {"rabbitmq": "ok"}


def redis() -> dict[str, str]:
    try:
        check_redis()
    except RedisUnavailable as failure:
        log.warning("check_failed", check="redis", error=str(failure)[:300])
        return {"redis": "down"}
    return {"redis": "ok"}


_recent = _Recent()
