"""What `manage.py doctor` looks at: every part; whether counters, rows and broker agree; and what to do about it."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from functools import partial
from itertools import islice
from urllib.parse import urlsplit

from django.conf import settings
from django.db import Error as DatabaseError
from django.db import connection
from django.db.models import QuerySet
from django.db.models.functions import Now

from processing.broker import rabbitmq, tokens
from processing.broker.errors import BrokerUnavailable
from processing.broker.pointers import queue_name
from processing.broker.rabbitmq import Publisher
from processing.operations.rebuild import brought
from project.postgresql import pooling
from project.rabbitmq_addresses import amqp_urls
from project.redis import RedisUnavailable, check_redis
from project.telemetry import health
from queues.lifecycle import control, correction, outbox
from queues.models import UserQueue
from queues.operations import backlog, integrity
from queues.operations.selectors import by_key
from queues.sql.figures import LONG_TRANSACTIONS
from queues.states import QueueState

NAMED = 1_000  # queues that one look at them finds wrong and names; of the others it tells how many
LATE = timedelta(seconds=30)  # what takes longer than this does not come right by itself
LONG_SECONDS = 60.0  # of a transaction: as the alert LongTransaction has it
DELIVERY_SECONDS = 1.0  # messages that a worker holds are not in the queue; soon they are acked or back


class Grade(StrEnum):
    OK = "ok"
    WARNING = "warning"  # works, but somebody should look
    FAULT = "fault"


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found. `advice` is what to type; `repair` does it, where that is safe."""

    check: str
    grade: Grade
    detail: str
    advice: str = ""
    repair: Callable[[], object] | None = None


SERVERS = {
    "postgresql": "Start it, or correct DATABASE_URL.",
    "migrations": "manage.py migrate",
    "rabbitmq": "Start it, or correct RABBITMQ_URL. Accepting goes on meanwhile.",
    "redis": "Start it, or correct REDIS_URL. All goes on meanwhile, more slowly.",
    "dispatcher": "manage.py dispatch",
}

# Each server: where it is, and a question. (Each thread has a connection of its own, so it is looked up when asked.)
ASKED: dict[str, tuple[str, Callable[[], object]]] = {
    "postgresql": (settings.ENV.database_url, lambda: connection.ensure_connection()),
    "rabbitmq": (settings.ENV.rabbitmq_url, rabbitmq.ping),
    "redis": (settings.ENV.redis_url, check_redis),
}


def diagnose(count: int, everywhere: bool, progress: Callable[[str], None]) -> Iterator[Finding]:
    """Look at everything, `count` queues at a time; with `everywhere` at the counters of queues at rest too."""
    found = health.checks()
    for name, advice in SERVERS.items():
        well = found[name] == "ok"
        grade = Grade.OK if well else Grade.WARNING if name == "redis" else Grade.FAULT
        yield Finding(name, grade, found[name] if well else f"{found[name]}{why_away(name)}", "" if well else advice)
    if found["postgresql"] != "ok" or found["migrations"] != "ok":
        return
    borrowed = pooling.by_transaction()
    yield _finding("sessions", borrowed, "a pooler lends them" if borrowed else "our own", pooling.REFUSAL)
    yield from transactions()
    yield from moving()
    yield from counters(count, everywhere, progress)
    if found["rabbitmq"] == "ok":
        yield from contents(count, progress)


def why_away(name: str) -> str:
    """Where a server was looked for and what came of it: host, port and name, no password. Empty: it is no server."""
    if name not in ASKED:
        return ""
    url, ask = ASKED[name]
    where = ", ".join(_place(one) for one in (amqp_urls(url) if name == "rabbitmq" else [url]))
    try:
        ask()
    except (DatabaseError, BrokerUnavailable, RedisUnavailable) as error:
        return f": {where}: {str(error).strip().partition(chr(10))[0]}"
    return f": {where}: it answers just now"


def _place(url: str) -> str:
    parts = urlsplit(url)
    place = parts.netloc.rpartition("@")[2]  # perhaps several hosts
    return f"{place if ':' in place else f'{place}:its usual port'}{parts.path}"


def transactions() -> Iterator[Finding]:
    """Which transactions are open for so long that everybody's leases and records get slower."""
    long = LONG_TRANSACTIONS.rows(seconds=LONG_SECONDS)
    for one in long:
        who = ", ".join(filter(None, [f"role {one.usename}", one.application_name, one.state]))
        yield Finding(
            "transactions",
            Grade.WARNING,
            f"pid {one.pid} ({who}) has one open for {one.seconds:.0f} s, which slows down every user",
            f"{one.ended_by} undoes it. An atomic handler's: manage.py requests list"
            " --status running, then requests cancel",
        )
    if not long:
        yield Finding("transactions", Grade.OK, f"none is open for more than {LONG_SECONDS:.0f} s")


def moving() -> Iterator[Finding]:
    """Whether somebody works, and what is late."""
    now = backlog.measure()
    missing = settings.ENV.dispatch_shards - now.dispatchers
    yield _finding(
        "shards", missing > 0, f"{now.dispatchers} of {settings.ENV.dispatch_shards} led", SERVERS["dispatcher"]
    )
    yield _finding("workers", now.workers == 0, f"{now.workers} worker processes", "manage.py work")
    for task, seconds in now.lag.items():
        late = f"the oldest is {seconds:.0f} s late"
        yield _finding(
            task, seconds > LATE.total_seconds(), late, "Look at the dispatcher's log: it may wait for a server."
        )
    expired = UserQueue.objects.filter(active=True, state=QueueState.DRAINING, lease_until__lt=Now() - LATE).count()
    yield _finding("leases", expired > 0, f"{expired} ended long ago", "manage.py dispatch: it ends them.")
    starving = UserQueue.objects.filter(
        active=True, state=QueueState.READY, paused=False, moved_at__lt=Now() - LATE
    ).count()
    if starving:
        more = "manage.py work --processes: more of them; or a handler is slow: manage.py queues list --sort age"
        yield Finding(
            "turns", Grade.WARNING, f"{starving} queues wait for a worker for more than {LATE.seconds} s", more
        )
    blocked = now.queues(QueueState.BLOCKED)
    if blocked:
        skip = "manage.py queues list --state blocked; then requests retry, or queue skip"
        yield Finding("blocked", Grade.WARNING, f"{blocked} queues", skip)


def _finding(check: str, wrong: bool, found: str, advice: str) -> Finding:
    return Finding(check, Grade.FAULT, found, advice) if wrong else Finding(check, Grade.OK, found)


def counters(count: int, everywhere: bool, progress: Callable[[str], None]) -> Iterator[Finding]:
    """Counters against rows. Nothing of ours makes them differ: a hand did."""
    looked = 0
    wrong = 0
    for queues, mismatches in integrity.compare(count, everywhere):
        for mismatch in mismatches[: max(0, NAMED - wrong)]:
            ends = ": ends it as failed; its owner can retry it" if mismatch.passed else ""
            repair = partial(correction.correct, mismatch.queue_id)
            yield Finding("counters", Grade.FAULT, str(mismatch), f"manage.py doctor --repair{ends}", repair)
        looked += queues
        wrong += len(mismatches)
        progress(f"counters: {looked} queues compared")
    if wrong > NAMED:
        yield Finding("counters", Grade.FAULT, f"{wrong - NAMED} more queues", "manage.py doctor --repair, again")
    if not wrong:
        yield Finding("counters", Grade.OK, f"{looked} queues agree with their rows")


def contents(count: int, progress: Callable[[str], None]) -> Iterator[Finding]:
    """Whether RabbitMQ has messages of all queues that it was brought any of. A worker would repair what is missing at
    the queue's next turn.
    """
    publisher = Publisher()
    try:
        tokens.learn(outbox.token_generation())
        if not isinstance(publisher.waiting_in([tokens.token_queue()])[tokens.token_queue()], int):
            yield Finding(
                "tokens",
                Grade.FAULT,
                "RabbitMQ has no queue for them, or no word of it",
                "manage.py doctor --repair",
                tokens.declare_token_queue,
            )
        looked, more = 0, 0
        suspects: list[UserQueue] = []
        for queues in _pages(by_key(_resting(), "id", count), count):
            lacking = _lacking(publisher, queues)
            more += max(0, len(suspects) + len(lacking) - NAMED)
            suspects += lacking[: NAMED - len(suspects)]
            looked += len(queues)
            progress(f"broker: {looked} queues compared")
        if suspects:
            time.sleep(DELIVERY_SECONDS)
        lost = _lacking(publisher, [queue for queue in suspects if _still(queue)])
    except BrokerUnavailable as error:
        yield Finding("broker", Grade.FAULT, str(error), SERVERS["rabbitmq"])
        return
    finally:
        publisher.close()
    for queue in lost:
        yield Finding(
            "broker", Grade.FAULT, f"queue {queue.pk}: RabbitMQ lacks messages of it",
            f"manage.py queue republish {queue.pk}", partial(control.republish, queue.pk),
        )  # fmt: skip
    if more:
        yield Finding("broker", Grade.FAULT, f"as it seems, {more} more queues", "manage.py rebuild_broker")
    elif not lost:
        yield Finding("broker", Grade.OK, f"{looked} queues have messages")


def _resting() -> QuerySet[UserQueue]:
    """The queues that RabbitMQ should hold messages of, and no worker takes from."""
    return brought().exclude(state=QueueState.DRAINING)


def _pages(queues: Iterator[UserQueue], count: int) -> Iterator[list[UserQueue]]:
    while page := list(islice(queues, count)):
        yield page


def _lacking(publisher: Publisher, queues: list[UserQueue]) -> list[UserQueue]:
    """Those of which RabbitMQ has no message, or says nothing. One message may be of any number of requests."""
    names = {queue_name(queue.pk, queue.generation): queue for queue in queues}
    waiting = publisher.waiting_in(list(names))

    return [queue for name, queue in names.items() if not isinstance(waiting[name], int) or not waiting[name]]


def _still(queue: UserQueue) -> bool:
    """Whether nothing has moved since it was read."""
    return (
        _resting()
        .filter(id=queue.pk, fence=queue.fence, published_seq=queue.published_seq, done_seq=queue.done_seq)
        .exists()
    )
