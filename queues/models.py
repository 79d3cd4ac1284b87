"""What is stored: a queue for each user, its requests in order, and every attempt at them.

The verbs that move a queue have files of their own: `enqueue/accept.py`, `lifecycle/outbox.py`, `lifecycle/lease.py`.
Their SQL is in `sql/`. What limits of kinds store is in `limits/models.py`.
"""

import uuid_utils.compat
from django.conf import settings
from django.db import models
from django.db.models import Case, ExpressionWrapper, F, Q, Sum, When
from django.db.models.functions import Now
from django.utils import timezone

from queues.bulk_action import BulkAction
from queues.fields import JSONText
from queues.in_line import InLine, limit_of
from queues.limits.models import HELD_UNTIL, KindLimit, KindStart, Permit
from queues.states import FINAL, GIVEN_UP, AttemptOutcome, OnFailure, QueueState, Status

__all__ = [
    "Attempt", "BulkAction", "IdempotencyKey", "KindLimit", "KindStart", "Leadership", "OperatorAction", "Permit",
    "Request", "TokenQueue", "UserQueue",
]  # fmt: skip


class UserQueue(models.Model):
    """The row that decides: three counters tell the whole story, `last_seq >= published_seq >= done_seq`."""

    user = models.OneToOneField(settings.AUTH_USER_MODEL, models.CASCADE, related_name="queue")
    last_seq = models.BigIntegerField(default=0, db_default=0, help_text="Given to the newest accepted request.")
    published_seq = models.BigIntegerField(default=0, db_default=0, help_text="The newest that RabbitMQ has.")
    done_seq = models.BigIntegerField(default=0, db_default=0, help_text="All up to this one have a final outcome.")
    given_up_ahead = models.BigIntegerField(
        default=0, db_default=0, help_text="Beyond done_seq so many are final already: cancelled, purged or expired."
    )

    state = models.CharField(max_length=10, choices=QueueState, default=QueueState.IDLE, db_default=QueueState.IDLE)
    state_since = models.DateTimeField(db_default=Now(), default=timezone.now)
    paused = models.BooleanField(default=False, db_default=False)
    paused_at = models.DateTimeField(null=True, blank=True)
    paused_by = models.CharField(max_length=500, blank=True, default="", db_default="", help_text="Who, and why.")
    operator_paused = models.BooleanField(
        default=False, db_default=False, help_text="Paused by an operator: its owner cannot resume it."
    )

    fence = models.BigIntegerField(
        default=0, db_default=0, help_text="Grows with every lease; only its holder records."
    )
    worker_id = models.BigIntegerField(
        null=True, blank=True, help_text="The worker process that has, or last had, the lease."
    )
    lease_until = models.DateTimeField(null=True, blank=True, help_text="Counts while draining; the database's clock.")
    claimed = models.IntegerField(
        default=0, db_default=0, help_text="While draining: so many from the head may be running."
    )
    claimed_at = models.DateTimeField(null=True, blank=True)
    crash_recovery_until_seq = models.BigIntegerField(
        default=0, db_default=0, help_text="Up to this one: one request, one commit."
    )
    wake_at = models.DateTimeField(null=True, blank=True, help_text="Only while waiting: when the head is tried again.")

    generation = models.BigIntegerField(
        default=0,
        db_default=0,
        help_text="Grows when RabbitMQ's queue gets another name, because the one it had cannot be used.",
    )
    idle_since = models.DateTimeField(
        null=True, blank=True, help_text="Set while an idle user's RabbitMQ queue exists."
    )
    avg_service_seconds = models.FloatField(
        null=True, blank=True, help_text="Pace: moving average of seconds a request."
    )
    moved_at = models.DateTimeField(null=True, blank=True, help_text="When the head last moved, or the queue woke up.")
    bytes_stored = models.BigIntegerField(default=0, db_default=0, help_text="The sum of its requests' bytes.")
    waiting_limit = models.IntegerField(null=True, blank=True, help_text="Most requests waiting; empty: the setting.")

    # Generated, so that they cannot lie; partial indexes on them keep the update of a counter or a lease HOT.
    unpublished = models.GeneratedField(
        expression=ExpressionWrapper(Q(last_seq__gt=F("published_seq")), models.BooleanField()),
        output_field=models.BooleanField(),
        db_persist=True,
    )
    active = models.GeneratedField(
        expression=ExpressionWrapper(~Q(state=QueueState.IDLE), models.BooleanField()),
        output_field=models.BooleanField(),
        db_persist=True,
    )

    class Meta:
        constraints = [
            models.CheckConstraint(
                name="counters_in_order",
                condition=Q(done_seq__gte=0, published_seq__gte=F("done_seq"), last_seq__gte=F("published_seq")),
            ),
            # Not held to `last_seq - done_seq` here: a release that does not know the column moves done_seq alone.
            models.CheckConstraint(name="given_up_ahead_counts", condition=Q(given_up_ahead__gte=0)),
            models.CheckConstraint(
                name="wakes_only_from_waiting",
                condition=Q(state=QueueState.WAITING, wake_at__isnull=False)
                | (~Q(state=QueueState.WAITING) & Q(wake_at__isnull=True)),
            ),
            models.CheckConstraint(
                name="idle_owes_nothing", condition=~Q(state=QueueState.IDLE) | Q(published_seq=F("done_seq"))
            ),
        ]
        indexes = [
            models.Index("id", name="queue_unpublished", condition=Q(unpublished=True)),
            models.Index("id", name="queue_active", condition=Q(active=True)),
            models.Index("id", name="queue_paused", condition=Q(paused=True)),
            models.Index("wake_at", name="queue_wakes", condition=Q(wake_at__isnull=False)),
            models.Index("idle_since", name="queue_reapable", condition=Q(idle_since__isnull=False)),
        ]
        permissions = [("operate_userqueue", "Can pause, resume, purge and republish queues")]

    def __str__(self) -> str:
        return f"user.{self.pk}"

    @property
    def depth(self) -> int:
        """How many requests have a sequence number and no final outcome yet; what was given up amid them is not."""
        return max(0, self.last_seq - self.done_seq - self.given_up_ahead)

    @property
    def held_back(self) -> bool:
        """Whether its head waits for its kind: for a limit, or because the kind is paused."""
        return self.wake_at is not None and self.wake_at > HELD_UNTIL

    @property
    def stands(self) -> bool:
        """Whether nobody can say when the next request begins: it is paused, its head blocks it, or is held back."""
        return self.paused or self.state == QueueState.BLOCKED or self.held_back

    def bytes_waiting(self) -> int:
        """How many bytes the payloads of its requests without a final status have, scheduled ones included."""
        in_line = self.requests.filter(seq__gt=self.done_seq, finished_at=None)
        scheduled = self.requests.filter(due_at__isnull=False)
        return sum(some.aggregate(sum=Sum("bytes"))["sum"] or 0 for some in (in_line, scheduled))

    @property
    def limit(self) -> int:
        """How many requests may wait in it."""
        return limit_of(self.waiting_limit)


class Request(InLine, models.Model):
    """One thing a user asked for. Its place in line is `seq`; what became of it is `status` once it is final."""

    id = models.UUIDField(primary_key=True, default=uuid_utils.compat.uuid7, editable=False)
    queue = models.ForeignKey(UserQueue, models.CASCADE, related_name="requests", db_index=False)
    seq = models.BigIntegerField(null=True, help_text="1, 2, 3 .. in each queue; empty while scheduled.")
    kind = models.CharField(max_length=100)
    version = models.IntegerField(default=1, db_default=1)
    payload = JSONText()
    status = models.CharField(max_length=10, choices=Status, default=Status.QUEUED, db_default=Status.QUEUED)
    attempt = models.IntegerField(default=0, db_default=0, help_text="How many attempts have ended.")
    max_attempts = models.IntegerField()
    on_failure = models.CharField(max_length=8, choices=OnFailure, default=OnFailure.CONTINUE)
    result = JSONText(null=True, blank=True)
    error = JSONText(null=True, blank=True)
    bytes = models.IntegerField(
        default=0, db_default=0, help_text="Of the texts of payload and result; 0: accepted before they were counted."
    )
    retry_of = models.ForeignKey("self", models.SET_NULL, null=True, blank=True, related_name="retries", db_index=False)
    trace = models.CharField(max_length=64, blank=True, help_text="X-Request-ID of the HTTP request that brought it.")
    traceparent = models.CharField(  # of the span that accepted it; stored with TRACING alone
        max_length=55, null=True, blank=True, help_text="Its trace, as W3C Trace Context writes it."
    )
    cancel_asked_at = models.DateTimeField(null=True, blank=True)
    not_before = models.DateTimeField(null=True, blank=True)
    expires_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(db_default=Now(), default=timezone.now)
    started_at = models.DateTimeField(null=True, blank=True, help_text="When its first attempt began.")
    finished_at = models.DateTimeField(null=True, blank=True)

    # Generated for the dispatcher's eyes; see UserQueue.unpublished.
    due_at = models.GeneratedField(
        expression=Case(When(status=Status.SCHEDULED, then=F("not_before"))),
        output_field=models.DateTimeField(null=True),
        db_persist=True,
    )
    lapses_at = models.GeneratedField(
        expression=Case(When(finished_at__isnull=True, then=F("expires_at"))),
        output_field=models.DateTimeField(null=True),
        db_persist=True,
    )

    # Few are: lists of them are read from small indexes, which a success never touches.
    given_up = models.GeneratedField(
        expression=Case(When(status__in=GIVEN_UP, then=F("status"))),
        output_field=models.CharField(max_length=10, null=True),
        db_persist=True,
    )

    class Meta:
        constraints = [
            models.UniqueConstraint("queue", "seq", name="one_request_a_place"),
            models.CheckConstraint(
                name="final_when_finished",
                condition=Q(status__in=FINAL, finished_at__isnull=False)
                | (~Q(status__in=FINAL) & Q(finished_at__isnull=True)),
            ),
            models.CheckConstraint(
                name="scheduled_has_no_place", condition=~Q(status=Status.SCHEDULED) | Q(seq__isnull=True)
            ),
            models.CheckConstraint(name="running_is_not_stored", condition=~Q(status=Status.RUNNING)),
        ]
        indexes = [
            models.Index("queue", "due_at", name="request_scheduled", condition=Q(due_at__isnull=False)),
            models.Index("due_at", name="request_due", condition=Q(due_at__isnull=False)),
            models.Index("lapses_at", name="request_lapses", condition=Q(lapses_at__isnull=False)),
            # For lists; nothing in them changes between accepting and success.
            models.Index("queue", "kind", "seq", name="request_kind"),
            models.Index("queue", "created_at", name="request_created"),
            models.Index("queue", "id", name="request_beside_line", condition=Q(seq=None)),
            models.Index("queue", "seq", name="request_was_scheduled", condition=Q(not_before__isnull=False)),
            models.Index("queue", "given_up", "seq", name="request_given_up", condition=Q(given_up__isnull=False)),
            models.Index("kind", "id", name="request_kind_newest"),
            # Whoever deletes a request looks whether others are retries of it; so does who retries only once.
            models.Index("retry_of", name="request_retries", condition=Q(retry_of__isnull=False)),
            models.Index("given_up", "id", name="request_given_up_newest", condition=Q(given_up__isnull=False)),
            models.Index("given_up", "kind", "id", name="request_given_up_kind", condition=Q(given_up__isnull=False)),
        ]
        permissions = [("operate_request", "Can cancel, retry and skip requests")]

    def __str__(self) -> str:
        return f"{self.kind} {self.pk}"


class Attempt(models.Model):
    """One attempt that ended. A request that succeeded at its first attempt needs none: its own row says all."""

    request = models.ForeignKey(Request, models.CASCADE, related_name="attempts", db_index=False)
    number = models.IntegerField()
    started_at = models.DateTimeField()
    finished_at = models.DateTimeField()
    outcome = models.CharField(max_length=10, choices=AttemptOutcome)
    error = JSONText(null=True, blank=True)
    traceback = models.TextField(null=True, blank=True, help_text="Of what the handler raised; for operators.")

    class Meta:
        ordering = ["number"]
        constraints = [models.UniqueConstraint("request", "number", name="one_attempt_a_number")]

    def __str__(self) -> str:
        return f"attempt {self.number} of {self.request_id}"


class IdempotencyKey(models.Model):
    """A POST that was answered, so that its repetition gets the same answer. Kept 24 h; see idempotency.py."""

    pk = models.CompositePrimaryKey("user_id", "key")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="+", db_index=False)
    key = models.CharField(max_length=255)
    digest = models.BinaryField(help_text="SHA-256 of path and body.")
    answer = models.BinaryField(help_text="The first answer's body.")
    location = models.CharField(max_length=200, blank=True)
    created_at = models.DateTimeField(db_default=Now(), db_index=True)

    def __str__(self) -> str:
        return f"{self.key} of {self.user_id}"


class TokenQueue(models.Model):
    """Each name after the first that the queue of drain tokens had; the newest is used. None: the first is."""

    generation = models.BigIntegerField(primary_key=True)
    since = models.DateTimeField(db_default=Now(), default=timezone.now)

    def __str__(self) -> str:
        return f"tokens {self.generation}"


class OperatorAction(models.Model):
    """What an operator changed by a command: who, why, and what came of it."""

    at = models.DateTimeField(db_default=Now(), default=timezone.now, db_index=True)
    by = models.CharField(max_length=150, help_text="The user of the machine that typed it, and the machine.")
    command = models.CharField(max_length=1000)
    reason = models.CharField(max_length=500, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True, help_text="Empty: it goes on, or was interrupted.")
    outcome = models.CharField(max_length=500, blank=True)

    class Meta:
        ordering = ["-at"]

    def __str__(self) -> str:
        return f"{self.by}: {self.command}"


class Leadership(models.Model):
    """Which dispatcher leads a shard, for as long as it does the work: a lease that only progress renews."""

    shard = models.IntegerField(primary_key=True)
    holder = models.CharField(max_length=200, help_text="The dispatcher: its machine, process and a random part.")
    epoch = models.BigIntegerField(help_text="Grows each time the lead is taken.")
    lead_until = models.DateTimeField(help_text="From then on another may take it; the database's clock.")
    renewed_at = models.DateTimeField(null=True, blank=True, help_text="Its leader's last sign; empty: given up.")

    def __str__(self) -> str:
        return f"shard {self.shard}"
