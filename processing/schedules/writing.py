"""Making and changing a schedule, whoever does it: every error names its field, and nothing is half done."""

from typing import Any
from uuid import UUID

from django.db import IntegrityError, transaction
from django.db.models import TextField, Value
from django.db.models.functions import Cast
from django.utils import timezone

from accounts.models import User
from processing.schedules.models import Schedule
from processing.schedules.timing import WrongTiming
from project.rest.problems import Conflict, FieldError, Invalid
from queues.enqueue import permissions
from queues.fields import JSONText
from queues.from_python import submission

MOST = 100  # of one user
WHEN = ("cron", "time_zone", "every_seconds", "enabled")


def add(user_id: UUID, payload: str, fields: dict[str, Any]) -> Schedule:
    """Make one; `payload` is JSON text. Raises Invalid, Forbidden, and Conflict: there are MOST of the user's."""
    with transaction.atomic():
        User.objects.select_for_update(no_key=True).get(id=user_id)  # so that two at once are not one too many
        schedule = Schedule(user_id=user_id, **_stored(fields))
        _check(schedule, payload, fields)
        if Schedule.objects.filter(user=user_id).count() >= MOST:
            raise Conflict(f"You have {MOST} schedules, which is as many as may be.")
        schedule.begin(timezone.now())
        _save(schedule, payload)
    return schedule


def change(user_id: UUID, schedule_id: UUID, payload: str | None, fields: dict[str, Any]) -> None:
    """Change some fields; when it is due begins anew if that changes. Raises Invalid, Forbidden and DoesNotExist."""
    with transaction.atomic():
        schedule = Schedule.objects.select_for_update(no_key=True).get(id=schedule_id, user=user_id)
        kept: str = Schedule.objects.values_list(Cast("payload", TextField()), flat=True).get(id=schedule_id)
        if fields.get("cron") is not None:
            fields.setdefault("every_seconds", None)
        elif fields.get("every_seconds") is not None:
            fields.setdefault("cron", None)
        before = {name: getattr(schedule, name) for name in WHEN}
        for name, value in _stored(fields).items():
            setattr(schedule, name, value)
        _check(schedule, kept if payload is None else payload, fields)
        if before != {name: getattr(schedule, name) for name in WHEN}:
            schedule.begin(timezone.now())
        _save(schedule, kept if payload is None else payload)


def _stored(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: "" if name == "cron" and value is None else value for name, value in fields.items()}


def _check(schedule: Schedule, payload: str, fields: dict[str, Any]) -> None:
    errors = []
    if not schedule.cron and schedule.every_seconds is None:
        errors.append(FieldError("cron", "required", "Write cron, or every_seconds."))
    elif schedule.cron and schedule.every_seconds is not None:
        errors.append(FieldError("every_seconds", "both", "Write cron or every_seconds, not both."))
    else:
        if "time_zone" in fields and not schedule.cron and schedule.time_zone != "UTC":
            errors.append(FieldError("time_zone", "without_cron", "A time zone goes with cron alone."))
        try:
            schedule.timing.check(timezone.now())
        except WrongTiming as wrong:
            errors.append(FieldError(wrong.field, "invalid", str(wrong)))
    try:
        asked = submission(schedule.kind, payload, schedule.version)
    except Invalid as invalid:
        errors += invalid.errors
    if errors:
        raise Invalid(*errors)
    permissions.check(schedule.user_id, [asked.kind])


def _save(schedule: Schedule, payload: str) -> None:
    schedule.payload = Cast(Value(payload, TextField()), JSONText())
    try:
        with transaction.atomic():
            schedule.save()
    except IntegrityError as conflict:
        if "one_schedule_a_name" not in str(conflict):
            raise
        raise Invalid(FieldError("name", "unique", "You have a schedule of this name.")) from None
