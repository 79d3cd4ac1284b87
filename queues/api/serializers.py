"""What the routes of requests and queues take in their query, and the shapes they show, for the OpenAPI document."""

from datetime import datetime
from typing import Any

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from project.rest.serializers import StrictSerializer, Text
from queues.enqueue.parsing import LARGEST_BATCH, read_time
from queues.representation.pagination import Cursor
from queues.states import AttemptOutcome, OnFailure, QueueState, Status

LARGEST_PAGE = 200
LONGEST_WAIT = 30


@extend_schema_field(OpenApiTypes.DATETIME)
class Time(serializers.CharField):
    """A time of RFC 3339 with its offset."""

    def to_internal_value(self, data: Any) -> datetime:  # type: ignore[override]  # a text, to DRF
        time = read_time(data) if isinstance(data, str) else None
        if time is None:
            said = "Write a time with offset as RFC 3339: 2026-11-20T09:30:00Z (a + is written %2B)."
            raise serializers.ValidationError(said, code="time")
        return time


@extend_schema_field(OpenApiTypes.STR)
class CursorField(serializers.CharField):
    def to_internal_value(self, data: Any) -> Cursor:  # type: ignore[override]  # a text, to DRF
        return Cursor.read(str(data))


class ListQuery(StrictSerializer):
    status = serializers.ChoiceField(Status.choices, required=False)
    kind = Text(required=False, max_length=100)
    created_after = Time(required=False, help_text="Only what was created later than this.")
    created_before = Time(required=False, help_text="Only what was created earlier than this.")
    order = serializers.ChoiceField(
        ["asc", "desc"],
        default="desc",
        help_text="By sequence. What has none (scheduled) stands at the new end: first in `desc`, last in `asc`.",
    )
    cursor = CursorField(required=False, help_text="From `next` or `previous` of another page.")
    limit = serializers.IntegerField(
        default=50,
        min_value=1,
        max_value=LARGEST_PAGE,
        help_text="Of a page, which ends sooner when it gets too large; `next` tells whether there is more.",
    )


class WaitQuery(StrictSerializer):
    wait = serializers.IntegerField(
        default=0,
        min_value=0,
        max_value=LONGEST_WAIT,
        help_text="Seconds: answers when the request is final, or after so long. When very many wait, sooner.",
    )


class JSONValue(serializers.JSONField):
    """Any JSON value, null too."""


class SubmissionBody(serializers.Serializer[Any]):
    """Checked by queues/enqueue/parsing.py; shown kind by kind (queues/api/openapi.py)."""

    kind = serializers.CharField(help_text="One of GET /api/v1/kinds.")
    payload = JSONValue(help_text="Fits the kind's schema; comes back unchanged.")
    version = serializers.IntegerField(
        required=False, allow_null=True, help_text="Of the kind; the newest if left out."
    )
    not_before = serializers.DateTimeField(
        required=False, allow_null=True, help_text="It is scheduled until then, a year at most; a past one is ignored."
    )
    expires_at = serializers.DateTimeField(
        required=False, allow_null=True, help_text="Ends as `expired` if it has not started by then."
    )


class BatchBody(serializers.Serializer[Any]):
    requests = serializers.ListField(child=SubmissionBody(), min_length=1, max_length=LARGEST_BATCH)


class ProgressShown(serializers.Serializer[Any]):
    current = serializers.IntegerField()
    total = serializers.IntegerField()
    note = serializers.CharField()


class ErrorShown(serializers.Serializer[Any]):
    type = serializers.CharField()
    message = serializers.CharField()
    at = serializers.DateTimeField()


class RequestShown(serializers.Serializer[Any]):
    id = serializers.UUIDField()
    kind = serializers.CharField()
    version = serializers.IntegerField()
    status = serializers.ChoiceField(Status.choices)
    sequence = serializers.IntegerField(allow_null=True, help_text="1, 2, 3 ..: its place; null while scheduled.")
    position = serializers.IntegerField(
        allow_null=True, help_text="Requests ahead of it that are not final; null when final or scheduled."
    )
    eta_seconds = serializers.FloatField(
        allow_null=True, help_text="Until its turn at the present pace; null where nobody knows, as in a blocked queue."
    )
    payload = JSONValue()
    attempt = serializers.IntegerField(help_text="The one that runs, or ran last; 0 before the first.")
    max_attempts = serializers.IntegerField()
    progress = ProgressShown(allow_null=True, help_text="While it runs, if its handler tells.")
    result = JSONValue(help_text="What the handler returned; null until it has succeeded.")
    error = ErrorShown(allow_null=True, help_text="Of the last attempt, if it failed.")
    retry_of = serializers.UUIDField(allow_null=True)
    cancel_requested = serializers.BooleanField(help_text="Its handler was asked to stop.")
    created_at = serializers.DateTimeField()
    not_before = serializers.DateTimeField(allow_null=True)
    expires_at = serializers.DateTimeField(allow_null=True)
    started_at = serializers.DateTimeField(allow_null=True, help_text="When its first attempt began; it never changes.")
    finished_at = serializers.DateTimeField(allow_null=True)


class BatchShown(serializers.Serializer[Any]):
    requests = RequestShown(many=True)


class PageShown(serializers.Serializer[Any]):
    results = RequestShown(many=True)
    next = serializers.URLField(allow_null=True)
    previous = serializers.URLField(allow_null=True)


class AttemptShown(serializers.Serializer[Any]):
    number = serializers.IntegerField()
    started_at = serializers.DateTimeField()
    finished_at = serializers.DateTimeField()
    outcome = serializers.ChoiceField(AttemptOutcome.choices)
    error = ErrorShown(allow_null=True)


class LimitedByShown(serializers.Serializer[Any]):
    kind = serializers.CharField()
    reason = serializers.ChoiceField(["paused", "max_concurrency", "rate"])
    until = serializers.DateTimeField(allow_null=True, help_text="Of a rate: when another may begin, whosesoever.")


class QueueShown(serializers.Serializer[Any]):
    state = serializers.ChoiceField(QueueState.choices)
    paused = serializers.BooleanField()
    depth = serializers.IntegerField(help_text="Requests in line without a final status, the running one included.")
    limit = serializers.IntegerField(help_text="The depth at which more is refused with 429.")
    oldest_waiting_at = serializers.DateTimeField(
        allow_null=True, help_text="Since when the next that waits could begin: created then, or its `not_before`."
    )
    running = serializers.UUIDField(allow_null=True, help_text="The request that runs.")
    finished_per_minute = serializers.FloatField(help_text="Succeeded or failed within the last minute.")
    eta_seconds = serializers.FloatField(allow_null=True, help_text="Until all of it is done at the present pace.")
    blocked_by = serializers.UUIDField(allow_null=True, help_text="The failed head that wants retry, skip or cancel.")
    limited_by = LimitedByShown(
        allow_null=True, help_text="The head waits because its kind is paused, or as many as may run or begin."
    )


class KindShown(serializers.Serializer[Any]):
    kind = serializers.CharField()
    version = serializers.IntegerField()
    description = serializers.CharField()
    schema = serializers.DictField(help_text="JSON Schema of its payload; empty: any JSON.")
    max_attempts = serializers.IntegerField()
    time_limit = serializers.FloatField(help_text="Seconds an attempt may take.")
    on_failure = serializers.ChoiceField(OnFailure.choices)


class StreamQuery(StrictSerializer):
    ticket = Text(required=False, max_length=100, help_text="Of POST /api/v1/queue/events/ticket; instead of a token.")


class TicketShown(serializers.Serializer[Any]):
    ticket = serializers.CharField(help_text="Good once, for 30 seconds: GET /api/v1/queue/events?ticket=")
