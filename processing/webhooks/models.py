"""What is stored: the addresses that users want to hear at, and each message that one of them is to get.

A trigger of PostgreSQL (migration 0002) writes a message in the transaction that makes its request final. Nobody else
has to know of webhooks for that, and nothing is lost. The SQL that moves a message on has its place in `statements.py`.
"""

import uuid

import uuid_utils.compat
from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now
from django.utils import timezone

from queues.models import UserQueue


class Event(models.TextChoices):
    """What a message tells. Those of a request carry the status that it got."""

    SUCCEEDED = "request.succeeded"
    FAILED = "request.failed"
    CANCELLED = "request.cancelled"
    EXPIRED = "request.expired"
    BLOCKED = "request.blocked"  # not final: its queue waits until its owner decides
    TEST = "webhook.test"  # asked for by the owner; nobody has to choose it


CHOSEN = tuple(event for event in Event if event != Event.TEST)


class DeliveryState(models.TextChoices):
    """Where a message stands."""

    PENDING = "pending"  # written; sent, and tried again, in the order of its webhook
    DELIVERED = "delivered"  # the receiver answered 2xx
    DROPPED = "dropped"  # its request was deleted before it could be sent


class Webhook(models.Model):
    """An address of one user. Its messages are sent one after another, by whoever holds the newest lease."""

    id = models.UUIDField(primary_key=True, default=uuid_utils.compat.uuid7, editable=False)
    # PostgreSQL itself deletes it with its queue (migration 0002): also where this app is not installed any more.
    queue = models.ForeignKey(UserQueue, models.CASCADE, related_name="+", db_constraint=False)
    url = models.CharField(max_length=2048)
    events = ArrayField(models.CharField(max_length=30, choices=Event))
    enabled = models.BooleanField(default=True, db_default=True)
    disabled_reason = models.CharField(max_length=300, blank=True, default="", db_default="")
    secret = models.CharField(max_length=100, help_text="whsec_ and base64. Signs; shown to its owner once.")
    old_secret = models.CharField(max_length=100, blank=True, default="", db_default="")
    old_secret_until = models.DateTimeField(null=True, blank=True, help_text="Until then the old one signs, too.")
    created_at = models.DateTimeField(db_default=Now(), default=timezone.now)
    deleted_at = models.DateTimeField(null=True, blank=True, help_text="Its messages go first, in parts; then it goes.")

    due_at = models.DateTimeField(null=True, blank=True, help_text="When its next message may go; empty: it has none.")
    lease = models.BigIntegerField(default=0, db_default=0, help_text="Grows each time somebody takes it to send.")
    leased_until = models.DateTimeField(null=True, blank=True)
    slow = models.BooleanField(
        default=False, db_default=False, help_text="It failed or took long the last time: half of the threads are open."
    )
    failures = models.IntegerField(default=0, db_default=0, help_text="Attempts that failed since the last success.")
    failing_since = models.DateTimeField(null=True, blank=True)
    last_error = models.CharField(max_length=300, blank=True, default="", db_default="")
    last_delivered_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        indexes = [
            models.Index("slow", "due_at", name="webhook_due", condition=Q(due_at__isnull=False)),
            models.Index("deleted_at", name="webhook_deleted", condition=Q(deleted_at__isnull=False)),
        ]
        permissions = [("operate_webhook", "Can switch webhooks on and off")]

    def __str__(self) -> str:
        """Without its address, which may be secret: the admin's log outlives it."""
        return f"webhook {self.id}"


class Delivery(models.Model):
    """One message to one webhook. `id` is its place in line: taken while its request's queue is locked."""

    id = models.BigAutoField(primary_key=True)
    uid = models.UUIDField(default=uuid.uuid4, editable=False, help_text="The same in each attempt: webhook-id.")
    # Not checked by PostgreSQL: the check would have a worker that records wait for whoever deletes the webhook.
    webhook = models.ForeignKey(Webhook, models.CASCADE, related_name="deliveries", db_constraint=False, db_index=False)
    event = models.CharField(max_length=30, choices=Event)
    request_id = models.UUIDField(null=True, blank=True)
    created_at = models.DateTimeField(db_default=Now(), default=timezone.now)
    state = models.CharField(
        max_length=10, choices=DeliveryState, default=DeliveryState.PENDING, db_default=DeliveryState.PENDING
    )
    announced = models.BooleanField(default=False, db_default=False, help_text="Its webhook is due because of it.")
    delivered_at = models.DateTimeField(null=True, blank=True)
    # [{"at", "status", "duration_ms", "error"}], the newest last.
    attempts = models.JSONField(default=list, db_default=models.Value([], models.JSONField()))
    response_body = models.TextField(blank=True, default="", db_default="", help_text="Of the last answer: 1 KiB.")

    class Meta:
        verbose_name_plural = "deliveries"
        constraints = [models.UniqueConstraint("uid", name="one_delivery_a_message")]
        indexes = [
            models.Index("webhook", "id", name="delivery_webhook"),
            models.Index("webhook", "id", name="delivery_pending", condition=Q(state=DeliveryState.PENDING)),
            models.Index("webhook", name="delivery_announced", condition=Q(announced=False)),
            models.Index("created_at", name="delivery_ended", condition=~Q(state=DeliveryState.PENDING)),
        ]
        permissions = [("operate_delivery", "Can have deliveries sent once more")]

    def __str__(self) -> str:
        return f"{self.event} {self.uid}"
