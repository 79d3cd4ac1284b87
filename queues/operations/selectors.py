"""What operators look at: queues that are not at rest, found by name, sorted by what is worst."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from django.db.models import Case, DateTimeField, F, Func, Q, QuerySet, When
from django.db.models.functions import Greatest, Now

from accounts.models import User
from queues.exceptions import NoSuch
from queues.models import Request, UserQueue
from queues.sql.definitions import finished_per_minute
from queues.sql.figures import OLDEST_WAITING_OF, THROUGHPUT_OF
from queues.sql.selectors import BLOCKED, LOOKED_AT, NEWEST_OF, QUEUED, RETRYING
from queues.sql.statement import Statement
from queues.states import GIVEN_UP, QueueState, Status

DEPTH = Greatest(F("last_seq") - F("done_seq") - F("given_up_ahead"), 0)  # as UserQueue.depth
RUNNING = Case(When(queue__state=QueueState.DRAINING, then=1), default=0)  # how many of a queue, with its requests
Order = Literal["depth", "age", "service_time"]
ORDERS: dict[Order, Any] = {
    "depth": DEPTH.desc(),
    "age": F("oldest_waiting_at").asc(nulls_last=True),
    "service_time": F("avg_service_seconds").desc(nulls_last=True),  # the slowest first
}


def find_user(text: str) -> User:
    """The user of that id or name. What is written as an id is one: others' names may be, too. Raises NoSuch."""
    try:
        found = User.objects.filter(id=UUID(text)).first()
    except ValueError:
        found = User.objects.named(text.replace("\0", "")).first()
    if found is None:
        raise NoSuch(f"There is no user {text!r}: give an id or a name.")
    return found


def find_queue(text: str) -> UserQueue:
    """The queue named by its number, or by its user's id or name. Raises NoSuch."""
    queues = UserQueue.objects.select_related("user")
    if text.isascii() and text.isdigit() and len(text) < 19:
        found = queues.filter(id=int(text)).first()
    else:
        try:
            found = queues.filter(user=UUID(text)).first()
        except ValueError:
            found = queues.filter(user__in=User.objects.named(text.replace("\0", ""))).first()
    if found is None:
        raise NoSuch(f"There is no queue {text!r}: give its number, or a user's id or name who asked for something.")
    return found


def find_request(text: str) -> Request:
    """The request of that id, with its queue and user. Raises NoSuch."""
    try:
        return Request.objects.select_related("queue__user").get(id=UUID(text))
    except (ValueError, Request.DoesNotExist):
        raise NoSuch(f"There is no request {text!r}: give its id.") from None


def busy(states: Sequence[str] = (), paused: bool | None = None) -> QuerySet[UserQueue]:
    """The queues that are not at rest, or paused: all that there is to see, whatever the number of users."""
    found = UserQueue.objects.select_related("user").filter(Q(active=True) | Q(unpublished=True) | Q(paused=True))
    if states:
        found = found.filter(state__in=states)
    return found if paused is None else found.filter(paused=paused)


def first_id(moment: datetime) -> UUID:
    """The smallest id that is given at that moment (RFC 9562: 48 bits of milliseconds come first)."""
    return UUID(int=int(moment.timestamp() * 1000) << 80)


def by_key(rows: QuerySet[Any], key: str, count: int) -> Iterator[Any]:
    """All rows in the order of `key`, read `count` at a time, each page in a statement of its own."""
    last: Any = None
    while True:
        page = list((rows if last is None else rows.filter(**{f"{key}__gt": last})).order_by(key)[:count])
        yield from page
        if len(page) < count:
            return
        last = getattr(page[-1], key)


def in_line(requests: QuerySet[Request], behind: Sequence[Any] | None) -> QuerySet[Request]:
    """Each queue's in their order, those without a number last; from behind a place (queue, number, id) on."""
    ordered = requests.order_by("queue_id", "seq", "id")
    if behind is None:
        return ordered
    queue, seq, pk = behind
    later = Q(queue_id__gt=queue) | Q(queue_id=queue, seq=None, id__gt=pk)
    later |= Q(queue_id=queue, seq__gt=seq) | Q(queue_id=queue, seq=None) if seq is not None else Q()
    return ordered.filter(later, queue_id__gte=queue)


def having(requests: QuerySet[Request], status: Status) -> QuerySet[Request]:
    """Those of that status, found through an index wherever there are few of them."""
    busy = requests.filter(Q(queue__active=True) | Q(queue__unpublished=True), finished_at=None)
    heads = busy.filter(seq=F("queue__done_seq") + 1)
    if status == Status.RUNNING:
        return heads.filter(queue__state=QueueState.DRAINING)
    if status == Status.BLOCKED:
        return heads.filter(queue__state=QueueState.BLOCKED)
    if status == Status.RETRYING:
        return heads.filter(status=status).exclude(queue__state__in=(QueueState.DRAINING, QueueState.BLOCKED))
    if status == Status.QUEUED:
        return busy.filter(status=status, seq__gt=F("queue__done_seq") + RUNNING)
    if status == Status.SCHEDULED:
        return requests.filter(status=status, due_at__isnull=False)
    return requests.filter(given_up=status) if status in GIVEN_UP else requests.filter(status=status)


def of_queues(requests: QuerySet[Request], queues: list[int]) -> QuerySet[Request]:
    """The requests of one queue, or the newest of each of several, LOOKED_AT in all."""
    if len(queues) == 1:
        return requests.filter(queue_id=queues[0])
    each = LOOKED_AT // max(1, len(queues))
    return requests.filter(id__in=_ids(NEWEST_OF, queues=queues, each=each))


def _ids(statement: Statement, **values: Any) -> list[UUID]:
    """Asked first, and by itself: within another statement the planner may look for them among all there are."""
    return [row.id for row in statement.rows(**values)]


def newest_having(requests: QuerySet[Request], status: Status, kind: str) -> QuerySet[Request]:
    """Those of that status (and kind, if it is not empty), among the LOOKED_AT newest, or the first in line, alone.

    What few have is not sought among millions that lack it, so that this takes the same time whatever there is.
    """
    if status == Status.QUEUED:
        requests = requests.filter(id__in=_ids(QUEUED))
    elif status == Status.RETRYING:
        requests = requests.filter(id__in=_ids(RETRYING))
    elif status == Status.BLOCKED:
        requests = requests.filter(id__in=_ids(BLOCKED))
    elif kind and status == Status.SUCCEEDED:
        newest = Request.objects.order_by("-id").filter(kind=kind)
        requests = requests.filter(id__in=newest.values("id")[:LOOKED_AT], status=status)
    else:
        requests = having(requests, status)
    return requests.filter(kind=kind) if kind else requests


def with_oldest(queues: QuerySet[UserQueue]) -> QuerySet[Any]:
    """Queues with `oldest_waiting_at`: since when the next request that waits could begin."""
    oldest = Func(
        F("id"),
        F("done_seq"),
        F("state"),
        template=OLDEST_WAITING_OF,
        output_field=DateTimeField(),
    )
    return queues.annotate(oldest_waiting_at=oldest, now=Now())


def throughput(queues: Sequence[UserQueue]) -> dict[int, float]:
    """How many requests each of these finished in the last minute, by its number."""
    rows = THROUGHPUT_OF.rows(queues=[queue.pk for queue in queues])
    return {row.id: finished_per_minute(row.outcomes, row.seconds) for row in rows}


def described(queues: Sequence[Any]) -> list[dict[str, Any]]:
    """Queues of `with_oldest` as operators are shown them."""
    per_minute = throughput(queues)
    return [
        {
            "queue": queue.id,
            "user": queue.user.username,
            "state": queue.state,
            "paused": queue.paused,
            "depth": queue.depth,
            "oldest_waiting_seconds": None
            if queue.oldest_waiting_at is None
            else round((queue.now - queue.oldest_waiting_at).total_seconds(), 1),
            "finished_per_minute": per_minute[queue.id],
            "avg_service_seconds": queue.avg_service_seconds,
            "running_since": queue.claimed_at if queue.state == QueueState.DRAINING else None,
        }
        for queue in queues
    ]


COLUMNS = (
    "queue", "user", "state", "paused", "depth", "oldest_waiting_seconds", "finished_per_minute",
    "avg_service_seconds", "running_since",
)  # fmt: skip
