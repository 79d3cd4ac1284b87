"""What the routes of webhooks take, and the shapes they show."""

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from processing.webhooks.delivery import addresses
from processing.webhooks.models import CHOSEN, DeliveryState, Event
from project.rest.serializers import StrictSerializer, Text
from queues.api.serializers import CursorField

LARGEST_PAGE = 200


class Address(Text):
    """An https address that is not known to lead inside."""

    def to_internal_value(self, data: Any) -> str:
        text = super().to_internal_value(data)
        try:
            return str(addresses.read(text))
        except ValueError as wrong:
            raise serializers.ValidationError(str(wrong), code="url") from None


@extend_schema_field({"type": "array", "items": {"type": "string", "enum": list(CHOSEN)}, "minItems": 1})
class Events(serializers.ListField):
    child = serializers.ChoiceField([event.value for event in CHOSEN])

    def to_internal_value(self, data: Any) -> list[str]:
        return sorted(set(super().to_internal_value(data)))


class WebhookBody(StrictSerializer):
    url = Address(max_length=addresses.LONGEST, help_text="https, with a certificate that browsers accept.")
    events = Events(
        default=lambda: [event.value for event in CHOSEN], allow_empty=False, help_text="All of them if left out."
    )
    enabled = serializers.BooleanField(default=True)


class WebhookChange(StrictSerializer):
    url = Address(max_length=addresses.LONGEST, required=False)
    events = Events(required=False, allow_empty=False)
    enabled = serializers.BooleanField(
        required=False, help_text="`true` also switches one on again that was switched off: what is pending is sent."
    )


class DeliveriesQuery(StrictSerializer):
    state = serializers.ChoiceField(DeliveryState.choices, required=False)
    cursor = CursorField(required=False, help_text="From `next` or `previous` of another page.")
    limit = serializers.IntegerField(default=50, min_value=1, max_value=LARGEST_PAGE)


class WebhookShown(serializers.Serializer[Any]):
    id = serializers.UUIDField()
    url = serializers.CharField()
    events = serializers.ListField(child=serializers.ChoiceField([event.value for event in CHOSEN]))
    enabled = serializers.BooleanField()
    disabled_reason = serializers.CharField(allow_null=True, help_text="Why it was switched off; null: you did it.")
    created_at = serializers.DateTimeField()
    failing_since = serializers.DateTimeField(allow_null=True, help_text="Every attempt since then has failed.")
    last_error = serializers.CharField(allow_null=True, help_text="Of the last attempt, if it failed.")
    last_delivered_at = serializers.DateTimeField(allow_null=True)
    next_attempt_at = serializers.DateTimeField(allow_null=True, help_text="While it fails and has more to deliver.")


class WebhookMade(WebhookShown):
    secret = serializers.CharField(help_text="Checks the signature. It is shown this once.")


class SecretShown(serializers.Serializer[Any]):
    secret = serializers.CharField(help_text="The new one. It is shown this once.")
    old_secret_until = serializers.DateTimeField(help_text="Until then messages carry the old one's signature, too.")


class WebhooksShown(serializers.Serializer[Any]):
    results = WebhookShown(many=True)
    limit = serializers.IntegerField(help_text="How many you may have.")


class DeliveryAttemptShown(serializers.Serializer[Any]):
    at = serializers.DateTimeField()
    status = serializers.IntegerField(allow_null=True, help_text="Null: no answer came.")
    duration_ms = serializers.FloatField()
    error = serializers.CharField(allow_null=True)


class DeliveryShown(serializers.Serializer[Any]):
    id = serializers.UUIDField()
    message_id = serializers.CharField(help_text="The header webhook-id: the same in each attempt.")
    event = serializers.ChoiceField(Event.choices)
    request = serializers.UUIDField(allow_null=True, help_text="Null for a test.")
    state = serializers.ChoiceField(
        DeliveryState.choices, help_text="`dropped`: its request was deleted before it could be sent."
    )
    created_at = serializers.DateTimeField()
    delivered_at = serializers.DateTimeField(allow_null=True)
    attempts = DeliveryAttemptShown(many=True, help_text="The newest last; at most 50.")
    response_body = serializers.CharField(help_text="The first 1,024 bytes of the last answer.")


class DeliveriesShown(serializers.Serializer[Any]):
    results = DeliveryShown(many=True, help_text="The newest first.")
    next = serializers.URLField(allow_null=True)
    previous = serializers.URLField(allow_null=True)
