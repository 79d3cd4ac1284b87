"""Schedules that are due, and what became of them."""

from datetime import timedelta
from typing import Any

from django.utils import timezone

from accounts.models import User
from processing.schedules import due, writing
from processing.schedules.models import Schedule
from queues.models import Request


def scheduled(user: User, late: float = 0, every: int = 60, **fields: Any) -> Schedule:
    """One that is due since `late` seconds."""
    asked = {"name": f"s{Schedule.objects.count()}", "kind": "demo.echo", "every_seconds": every, **fields}
    made = writing.add(user.id, '{"n": 1.50}', asked)
    since = timezone.now() - timedelta(seconds=late)
    Schedule.objects.filter(id=made.id).update(next_at=since, look_at=since)
    made.refresh_from_db()
    return made


def submitted(user: User) -> int:
    return Request.objects.filter(queue__user=user).count()


def fresh(schedule: Schedule) -> Schedule:
    return Schedule.objects.get(id=schedule.id)


def in_order(user: User) -> list[str | None]:
    """By which schedules the user's requests were submitted."""
    traces = Request.objects.filter(queue__user=user).order_by("seq").values_list("trace", flat=True)
    names = {f"schedule-{one.id}": one.name for one in Schedule.objects.filter(user=user)}
    return [names.get(trace) for trace in traces]


def all_due() -> int:
    count = 0
    while went_on := due.submit_round():
        count += went_on
    return count
