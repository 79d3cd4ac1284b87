"""What is wrong, the worst first, each with what it means, and a link to what it is about or what to type."""

from dataclasses import dataclass
from urllib.parse import urlencode

from django.conf import settings
from django.urls import reverse

from queues.admin.ages import lasting
from queues.operations.backlog import Backlog
from queues.states import QueueState

LATE_SECONDS = 60.0
FAILING = 0.2  # of a kind's requests in the last hour
SERVERS = {"postgresql": "PostgreSQL", "rabbitmq": "RabbitMQ", "redis": "Redis", "migrations": "Schema"}
MEANS = {
    "postgresql": "Nothing is accepted, nothing runs: manage.py doctor says why.",
    "rabbitmq": "Requests are accepted and kept; none is started: manage.py doctor says why.",
    "redis": "Limits, progress and the rates below suffer; requests are accepted and run: manage.py doctor says why.",
    "migrations": "The schema is not that of this release: manage.py migrate.",
}


@dataclass(frozen=True, slots=True)
class Light:
    """One thing that works or does not, and then what that means. `serious`: work waits or is lost sight of."""

    name: str
    state: str
    works: bool | None  # None: not known yet
    means: str = ""
    link: str = ""
    serious: bool = True


def lights(found: dict[str, str], standing: Backlog) -> list[Light]:
    """The servers, the processes and the queues, always in one order."""
    return [*_servers(found), *_processes(standing), _moving(standing), _blocked(standing)]


def _servers(found: dict[str, str]) -> list[Light]:
    return [
        Light(
            SERVERS[name], found.get(name, "not known yet"), found[name] == "ok" if name in found else None, MEANS[name]
        )
        for name in SERVERS
    ]


def _processes(standing: Backlog) -> list[Light]:
    shards = settings.ENV.dispatch_shards
    led = f"{standing.dispatchers} of {shards} {'shard' if shards == 1 else 'shards'} led"
    workers = f"{standing.workers} {'process' if standing.workers == 1 else 'processes'}"
    return [
        Light(
            "Dispatchers",
            led,
            standing.dispatchers >= shards,
            "Accepted requests get to no worker: manage.py dispatch. One that leads and stands still is frozen.",
        ),
        Light("Workers", workers, standing.workers > 0, "Nothing runs: manage.py work."),
    ]


def _moving(standing: Backlog) -> Light:
    return Light(
        "Queues",
        f"work waits for {lasting(standing.stuck_for)}" if standing.stuck else "moving",
        not standing.stuck,
        "Requests could begin, and none does: are dispatchers and workers alive, do slow handlers hold all threads?",
        queues_by(state=QueueState.READY.value),
    )


def _blocked(standing: Backlog) -> Light:
    blocked = standing.queues(QueueState.BLOCKED)
    return Light(
        "Blocked",
        f"{blocked} {'queue' if blocked == 1 else 'queues'}" if blocked else "none",
        not blocked,
        "The head failed for good, and nothing behind it runs: retry, cancel or skip it.",
        queues_by(state=QueueState.BLOCKED.value),
    )


def late(standing: Backlog) -> list[Light]:
    """What waits long although work goes on: somebody's queue is deep, or there are too few workers."""
    oldest = standing.ages["moving"]
    if oldest < LATE_SECONDS or standing.stuck:
        return []
    means = "The oldest request that may run has waited so long. Sort the queues by what waits longest."
    return [Light("Late", lasting(oldest), False, means, queues_by(o="4"), serious=False)]


def held_back(standing: Backlog) -> list[Light]:
    """The kinds that keep somebody waiting for longer than KIND_WAIT_SECONDS."""
    return [
        Light(
            f"Held back: {kind.kind}",
            f"{kind.waiting} {'queue' if kind.waiting == 1 else 'queues'} for up to {lasting(kind.waits_seconds)}",
            False,
            f"It is paused by {kind.paused_by}." if kind.paused else "Its limit lets no more of it run or begin.",
            reverse("admin:queues_kindlimit_changelist"),
            serious=False,
        )
        for kind in standing.kinds
        if kind.waits_seconds is not None and kind.waits_seconds > settings.ENV.kind_wait_seconds
    ]


def failing(kinds: list[dict[str, object]]) -> list[Light]:
    """The kinds of which many requests failed in the last hour."""
    return [
        Light(
            f"Failing: {row['kind']}",
            f"{row['failed']} of {row['finished']} in the last hour",
            False,
            f"Mostly {row['error']}.",
            requests_by(status="failed", kind=str(row["kind"])),
            serious=False,
        )
        for row in kinds
        if isinstance(share := row["share"], float) and share >= 100 * FAILING
    ]


def queues_by(**filters: str) -> str:
    """The list of queues, narrowed."""
    return f"{reverse('admin:queues_userqueue_changelist')}?{urlencode(filters)}"


def requests_by(**filters: str) -> str:
    """The list of requests, narrowed."""
    return f"{reverse('admin:queues_request_changelist')}?{urlencode(filters)}"
