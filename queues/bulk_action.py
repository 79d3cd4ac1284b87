"""What an operator confirmed in the admin for many queues or requests, and how far the dispatcher is with it."""

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models.functions import Now
from django.utils import timezone


class BulkAction(models.Model):
    """The targets are frozen when it is confirmed; `position` says how many of them have had their turn.

    A target is "queue id", so that what is locked is tried again in its user's order.
    """

    confirmation = models.UUIDField(unique=True, help_text="Of the page that was confirmed: once, however often sent.")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="+")
    page = models.CharField(max_length=20, help_text="The admin's list that it was asked for in.")
    name = models.CharField(max_length=30)
    reason = models.CharField(max_length=300)
    given = models.JSONField(help_text="What else the operator filled in.")
    targets = ArrayField(models.TextField())
    later = ArrayField(models.TextField(), help_text="Locked by somebody when they had their turn.")
    total = models.IntegerField()
    position = models.IntegerField(default=0, db_default=0)
    done = models.IntegerField(default=0, db_default=0)
    skipped = models.JSONField(help_text="How many were not possible, by reason.")
    failed = models.JSONField(help_text="How many went wrong, by reason.")
    created_at = models.DateTimeField(db_default=Now(), default=timezone.now)
    next_at = models.DateTimeField(db_default=Now(), default=timezone.now, help_text="When the next group is due.")
    handled_at = models.DateTimeField(null=True, blank=True, help_text="When a target was last handled.")
    finished_at = models.DateTimeField(null=True, blank=True)
    stopped = models.CharField(max_length=300, blank=True, default="", db_default="", help_text="Why it ended early.")

    class Meta:
        default_permissions = ()  # who may see queues sees it; who may do it cancels it
        indexes = [models.Index("finished_at", "next_at", name="bulkaction_due")]

    def __str__(self) -> str:
        return f"{self.name} {self.pk}"

    @property
    def handled(self) -> int:
        """How many targets need no more attention."""
        return self.position - len(self.later)
