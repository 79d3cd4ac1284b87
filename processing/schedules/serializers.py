"""What the routes of schedules take and show."""

from typing import Any

from rest_framework import serializers

from processing.schedules.models import Missed
from processing.schedules.timing import LONGEST_CRON
from project.rest.serializers import StrictSerializer, Text
from queues.api.serializers import JSONValue

SHORTEST_SECONDS, LONGEST_SECONDS = 10, 366 * 86400


class Whole(serializers.IntegerField):
    """A JSON integer. DRF's own takes text for numbers."""

    def to_internal_value(self, data: Any) -> int:
        if type(data) is not int:
            self.fail("invalid")
        return super().to_internal_value(data)


class Truth(serializers.BooleanField):
    """true or false. DRF's own takes "yes", too."""

    def to_internal_value(self, data: Any) -> bool:
        if type(data) is not bool:
            self.fail("invalid", input=data)
        return data


class Choice(serializers.ChoiceField):
    def to_internal_value(self, data: Any) -> Any:
        if not isinstance(data, str):
            self.fail("invalid_choice", input=data)
        return super().to_internal_value(data)


class ScheduleChange(StrictSerializer):
    name = Text(max_length=100, required=False, help_text="Yours alone: no two have the same.")
    kind = Text(max_length=100, required=False, help_text="One of GET /api/v1/kinds.")
    version = Whole(
        min_value=1, max_value=2**31 - 1, required=False, allow_null=True, help_text="The newest when due, if left out."
    )
    payload = JSONValue(required=False, allow_null=True, help_text="Fits the kind's schema.")
    cron = Text(
        max_length=LONGEST_CRON, required=False, allow_null=True, help_text="Five fields, such as 30 6 * * MON-FRI."
    )
    time_zone = Text(max_length=64, required=False, help_text="Of cron: Europe/Berlin, say. Default: UTC.")
    every_seconds = Whole(
        min_value=SHORTEST_SECONDS,
        max_value=LONGEST_SECONDS,
        required=False,
        allow_null=True,
        help_text="Instead of cron.",
    )
    missed = Choice(
        Missed.choices, required=False, help_text="What becomes of due times that could not be submitted. Default: one."
    )
    enabled = Truth(required=False, help_text="Default: true.")


class ScheduleBody(ScheduleChange):
    name = Text(max_length=100, help_text="Yours alone: no two have the same.")
    kind = Text(max_length=100, help_text="One of GET /api/v1/kinds.")
    payload = JSONValue(allow_null=True, help_text="Fits the kind's schema.")


class ScheduleShown(serializers.Serializer[Any]):
    id = serializers.UUIDField()
    name = serializers.CharField()
    kind = serializers.CharField()
    version = serializers.IntegerField(allow_null=True)
    payload = JSONValue()
    cron = serializers.CharField(allow_null=True)
    time_zone = serializers.CharField()
    every_seconds = serializers.IntegerField(allow_null=True)
    missed = serializers.ChoiceField(Missed.choices)
    enabled = serializers.BooleanField()
    next_at = serializers.ListField(
        child=serializers.DateTimeField(), max_length=3, help_text="The next due times; none while it is paused."
    )
    last_due_at = serializers.DateTimeField(allow_null=True, help_text="The due time that was submitted last.")
    last_request = serializers.UUIDField(allow_null=True, help_text="What was submitted last.")
    last_error = serializers.CharField(
        allow_null=True, help_text="Why the last due time could not be submitted; null: it was."
    )
    created_at = serializers.DateTimeField()


class SchedulesShown(serializers.Serializer[Any]):
    results = ScheduleShown(many=True)
