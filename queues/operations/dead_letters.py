"""The dead letters: what failed, why, and once more in the order in which it was asked for."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db.models import Count, Exists, Max, Min, OuterRef, QuerySet
from django.db.models.fields.json import KeyTextTransform

from queues.models import Attempt, Request, UserQueue
from queues.operations.selectors import in_line
from queues.states import AttemptOutcome, Status

PLACE = ("queue_id", "seq", "id")


@dataclass(frozen=True, slots=True)
class Chosen:
    """Which failed requests are meant."""

    kind: str | None = None
    queue: UserQueue | None = None
    since: datetime | None = None


def failed(chosen: Chosen) -> QuerySet[Request]:
    """The failed requests, read from the small index of what was given up."""
    found = Request.objects.filter(given_up=Status.FAILED)
    if chosen.since is not None:
        # Those that failed since may have been accepted long before.
        found = found.filter(finished_at__gte=chosen.since)
    if chosen.kind is not None:
        found = found.filter(kind=chosen.kind)
    return found if chosen.queue is None else found.filter(queue=chosen.queue)


def summary(chosen: Chosen) -> list[dict[str, Any]]:
    """How many failed of each kind, with which error, in how many queues, and when first and last."""
    groups = failed(chosen).values("kind", error_type=KeyTextTransform("type", "error"))
    counted = groups.annotate(
        requests=Count("id"), queues=Count("queue", distinct=True), first=Min("finished_at"), last=Max("finished_at")
    )
    return [dict(row) for row in counted.order_by("-requests", "kind")]


def not_retried(chosen: Chosen) -> QuerySet[Request]:
    """Those that nobody has tried again yet."""
    return failed(chosen).filter(~Exists(Request.objects.filter(retry_of=OuterRef("pk"))))


def ids_in_order(chosen: Chosen, count: int) -> Iterator[UUID]:
    """The ids of `not_retried`, each user's in order, read `count` at a time; none that is accepted meanwhile."""
    newest = Request.objects.order_by("-id").values_list("id", flat=True).first()
    place = None
    while rows := list(in_line(not_retried(chosen).filter(id__lte=newest), place).values_list(*PLACE)[:count]):
        place = rows[-1]
        yield from (request_id for _, _, request_id in rows)


NEWEST = 1000  # failures that the board looks at


def newest(since: UUID) -> list[dict[str, Any]]:
    """The NEWEST failures among ids above `since`, by kind: `failures`, its commonest `error`, the three
    commonest `errors` with how many of each, the `last` time.

    What a handler rejected is its caller's error and is left out.
    """
    last_attempt = Attempt.objects.filter(request=OuterRef("pk"), number=OuterRef("attempt"))
    found = (
        Request.objects.filter(given_up=Status.FAILED, id__gte=since)
        .annotate(rejected=Exists(last_attempt.filter(outcome=AttemptOutcome.REJECTED)))
        .order_by("-id")
    )
    errors: defaultdict[str, Counter[str]] = defaultdict(Counter)
    last: dict[str, datetime] = {}
    columns = ("kind", KeyTextTransform("type", "error"), "finished_at", "rejected")
    for kind, error, at, rejected in found.values_list(*columns)[:NEWEST]:
        if rejected:
            continue
        errors[kind][error or "-"] += 1
        last[kind] = max(at, last.get(kind, at))
    rows = [
        {
            "kind": kind,
            "failures": counted.total(),
            "error": counted.most_common(1)[0][0],
            "errors": counted.most_common(3),
            "last": last[kind],
        }
        for kind, counted in errors.items()
    ]
    return sorted(rows, key=lambda row: (-row["failures"], row["kind"]))
