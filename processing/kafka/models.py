"""What is kept of Kafka's messages: which events became requests, for ever, and what was rejected."""

from django.db import models
from django.db.models.functions import Now
from django.utils import timezone


class Event(models.Model):
    """An event that made a request. It is never deleted: whenever it is delivered again, it makes no other one."""

    id = models.UUIDField(primary_key=True, editable=False, help_text="The eventId, or its hash if it is no UUID.")
    content = models.BigIntegerField(help_text="Hash of user, kind and payload: an id that is used again is noticed.")
    request_id = models.UUIDField(help_text="What it made; that may be deleted by now.")

    def __str__(self) -> str:
        return str(self.id)


class RejectedMessage(models.Model):
    """A message that no request could be made of, as it came. It can be replayed."""

    topic = models.CharField(max_length=249)
    partition = models.IntegerField()
    offset = models.BigIntegerField()
    key = models.BinaryField(null=True)
    value = models.BinaryField(null=True)
    headers = models.JSONField(default=list, help_text="Names, and values in base64.")
    digest = models.UUIDField(help_text="Of all of it: offsets begin anew where a topic is made anew.")
    event_id = models.CharField(max_length=255, blank=True, default="")
    reason = models.CharField(max_length=30)
    detail = models.CharField(max_length=1000)
    rejected_at = models.DateTimeField(db_default=Now(), default=timezone.now)
    replayed_at = models.DateTimeField(null=True, blank=True, help_text="When its request was accepted after all.")
    request_id = models.UUIDField(null=True, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint("topic", "partition", "offset", "digest", name="one_rejection_a_message"),
        ]
        indexes = [models.Index("rejected_at", name="rejected_at")]
        permissions = [("replay_rejectedmessage", "Can replay rejected messages")]

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}/{self.offset}"
