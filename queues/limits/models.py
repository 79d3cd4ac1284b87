"""What a deployment lets each kind do at once and in a time, and who has a permit of it, or waits for one."""

from datetime import UTC, datetime

from django.db import models
from django.db.models import Case, F, Q, When
from django.db.models.functions import Coalesce, Now, NullIf
from django.utils import timezone

HELD_UNTIL = datetime(2999, 1, 1, tzinfo=UTC)  # a queue that waits for longer is held back: its head has no permit

_MOST = NullIf(Coalesce("max_concurrency", "declared_concurrency"), 0)
_RATE = NullIf(Coalesce("rate", "declared_rate"), 0)


class KindLimit(models.Model):
    """The limits of one kind, all its versions together. Each kind that a worker has had is here, limited or not.

    What the deployment says comes before what the handler declares; 0 lifts a limit.
    """

    kind = models.CharField(max_length=100, primary_key=True)
    declared_concurrency = models.IntegerField(null=True, blank=True, help_text="As its handler declares.")
    declared_rate = models.IntegerField(null=True, blank=True)
    declared_seconds = models.IntegerField(null=True, blank=True)
    max_concurrency = models.IntegerField(
        null=True, blank=True, help_text="Most that run at once here. 0: no limit; empty: as declared."
    )
    rate = models.IntegerField(
        null=True, blank=True, help_text="Most that begin in any window. 0: no limit; empty: as declared."
    )
    seconds = models.IntegerField(null=True, blank=True, help_text="Length of that window.")
    paused = models.BooleanField(default=False, db_default=False)
    paused_at = models.DateTimeField(null=True, blank=True)
    paused_by = models.CharField(max_length=500, blank=True, default="", db_default="", help_text="Who, and why.")
    version = models.BigIntegerField(
        default=0, db_default=0, help_text="Grows with each decision: of two at once, one is made again."
    )
    starts = models.BigIntegerField(default=0, db_default=0, help_text="How many began under a rate.")

    # Generated, so that every statement means the same.
    most = models.GeneratedField(expression=_MOST, output_field=models.IntegerField(null=True), db_persist=True)
    rate_most = models.GeneratedField(expression=_RATE, output_field=models.IntegerField(null=True), db_persist=True)
    rate_seconds = models.GeneratedField(
        expression=Case(When(rate=None, then=F("declared_seconds")), default=F("seconds")),
        output_field=models.IntegerField(null=True),
        db_persist=True,
    )

    class Meta:
        constraints = [
            models.CheckConstraint(
                name="limits_not_negative",
                condition=(Q(max_concurrency=None) | Q(max_concurrency__gte=0)) & (Q(rate=None) | Q(rate__gte=0)),
            ),
            models.CheckConstraint(
                name="rate_has_window", condition=Q(rate=None) | Q(rate=0) | Q(seconds__isnull=False, seconds__gt=0)
            ),
        ]
        permissions = [("operate_kindlimit", "Can pause and resume kinds")]
        verbose_name = "kind"

    def __str__(self) -> str:
        return self.kind

    @property
    def limited(self) -> bool:
        """Whether its requests ask for a permit."""
        return self.paused or self.most is not None or self.rate_most is not None


class Permit(models.Model):
    """A head's place in its kind's line: it waits; it is called (`called_at`); it runs (`fence`: under that lease).

    One that runs counts as long as its lease lives and its request is not recorded: nothing has to give it back. There
    is no foreign key: checking one would wait for a queue's row, and everyone who asks for that kind with it.
    """

    queue_id = models.BigIntegerField(primary_key=True)
    kind = models.CharField(max_length=100)
    seq = models.BigIntegerField()
    fence = models.BigIntegerField(null=True)
    since = models.DateTimeField(db_default=Now(), default=timezone.now, help_text="When it first asked.")
    called_at = models.DateTimeField(null=True)

    class Meta:
        indexes = [
            models.Index("kind", "since", "queue_id", name="permit_waits", condition=Q(called_at=None)),
            models.Index("kind", name="permit_called", condition=Q(called_at__isnull=False)),
        ]

    def __str__(self) -> str:
        return f"{self.kind} of user.{self.pk}"


class KindStart(models.Model):
    """When the n-th request of a kind with a rate began; kept while it counts."""

    pk = models.CompositePrimaryKey("kind", "n")
    kind = models.CharField(max_length=100)
    n = models.BigIntegerField()
    at = models.DateTimeField()

    def __str__(self) -> str:
        return f"{self.kind} {self.n}"
