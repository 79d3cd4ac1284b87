"""What is stored of a schedule. It moves in `due.py`; its owner and operators change it by the verbs here."""

from collections.abc import Iterator
from datetime import datetime
from itertools import islice
from typing import Any

import uuid_utils.compat
from django.conf import settings
from django.db import models, transaction
from django.db.models import Count, Min, Q
from django.db.models.functions import Now
from django.utils import timezone

from accounts.models import User
from processing.schedules.timing import Timing
from queues.fields import JSONText
from queues.operations.kinds_in_use import KindUse


class Missed(models.TextChoices):
    """What becomes of due times at which nothing was submitted: the dispatcher was away, or the queue full."""

    SKIP = "skip", "Submit nothing for them."
    ONE = "one", "Submit one request for all of them."
    ALL = "all", "Submit one for each, for the newest 100."


class Schedule(models.Model):
    """A kind and a payload at set times: each due time becomes exactly one request in its user's order."""

    id = models.UUIDField(primary_key=True, default=uuid_utils.compat.uuid7, editable=False)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="schedules", db_index=False)
    name = models.CharField(max_length=100)
    kind = models.CharField(max_length=100)
    version = models.IntegerField(null=True, blank=True, help_text="Empty: the newest when it is due.")
    payload = JSONText()
    cron = models.CharField(max_length=100, blank=True, default="")
    time_zone = models.CharField(max_length=64, default="UTC")
    every_seconds = models.IntegerField(null=True, blank=True)
    missed = models.CharField(max_length=4, choices=Missed, default=Missed.ONE)

    enabled = models.BooleanField(default=True)
    next_at = models.DateTimeField(null=True, blank=True, help_text="The due time that is next; empty while paused.")
    look_at = models.DateTimeField(
        null=True, blank=True, help_text="When it is looked at: next_at, or later where the queue was full."
    )
    last_due_at = models.DateTimeField(null=True, blank=True, help_text="The due time that was submitted last.")
    last_request_id = models.UUIDField(null=True, blank=True, help_text="What was submitted last.")
    last_error = models.CharField(
        max_length=500, blank=True, default="", help_text="Why the last due time could not be submitted; empty: it was."
    )
    created_at = models.DateTimeField(db_default=Now(), default=timezone.now)

    class Meta:
        constraints = [
            models.UniqueConstraint("user", "name", name="one_schedule_a_name"),
            models.CheckConstraint(
                name="cron_or_seconds",
                condition=Q(cron="", every_seconds__gt=0) | (~Q(cron="") & Q(every_seconds__isnull=True)),
            ),
            models.CheckConstraint(
                name="paused_is_never_due", condition=Q(enabled=True) | Q(next_at__isnull=True, look_at__isnull=True)
            ),
        ]
        indexes = [models.Index("look_at", name="schedule_due", condition=Q(look_at__isnull=False))]
        permissions = [("operate_schedule", "Can pause, resume and run schedules")]

    def __str__(self) -> str:
        return self.name

    @property
    def timing(self) -> Timing:
        return Timing(self.cron, self.time_zone, self.every_seconds)

    def begin(self, now: datetime) -> None:
        """Have it due from now on, if it is enabled. Not saved."""
        self.next_at = self.look_at = self.timing.first(now) if self.enabled else None

    def pause(self) -> bool:
        """Have it due no more until it is resumed; whether it was."""
        return bool(self._mine().filter(enabled=True).update(enabled=False, next_at=None, look_at=None))

    def resume(self) -> bool:
        """Have it due again from now on: what it was paused for is not missed. Whether it was paused."""
        with transaction.atomic():  # its times are those of now, not those that were read before
            paused: Schedule | None = self._mine().select_for_update(no_key=True).filter(enabled=False).first()
            if paused is None:
                return False
            paused.enabled = True
            paused.begin(timezone.now())
            paused.save(update_fields=["enabled", "next_at", "look_at"])
        return True

    def upcoming(self, count: int = 3) -> list[datetime]:
        """The due times that are next."""
        if self.next_at is None:
            return []
        return [self.next_at, *islice(self.timing.after(self.next_at), count - 1)]

    def _mine(self) -> "models.QuerySet[Any]":
        return type(self).objects.filter(id=self.id)


def kinds_in_use() -> list[KindUse]:
    """The kinds that schedules ask for, paused ones included."""
    found = Schedule.objects.order_by("kind", "version").values_list("kind", "version")
    counted = found.annotate(Count("id"), Count("user", distinct=True), Min("created_at"))
    return [KindUse("schedules", *row) for row in counted]


def records_of(user: User) -> Iterator[dict[str, Any]]:
    """What is kept of the user's schedules, for their export: there are no more than a hundred."""
    names = (
        "id", "name", "kind", "version", "payload", "cron", "time_zone", "every_seconds", "missed", "enabled",
        "next_at", "last_due_at", "last_request_id", "last_error", "created_at",
    )  # fmt: skip
    for schedule in Schedule.objects.filter(user=user).order_by("id"):
        yield {"record": "schedule", **{name: getattr(schedule, name) for name in names}}
