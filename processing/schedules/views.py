"""The routes below /api/v1/schedules: a user's own, and nobody else's."""

from typing import Any, cast
from uuid import UUID

import orjson
from django.db.models import QuerySet, TextField
from django.db.models.functions import Cast
from django.http import HttpResponse
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request as APIRequest
from rest_framework.response import Response

from accounts.models import User
from processing.schedules import writing
from processing.schedules.due import run_now
from processing.schedules.models import Schedule
from processing.schedules.serializers import ScheduleBody, ScheduleChange, ScheduleShown, SchedulesShown
from project.rest.problems import NotFound
from project.rest.views import StrictView
from project.web import rate_limit
from queues.api.answers import json
from queues.api.requests import identified, too_much
from queues.enqueue.parsing import payload_text
from queues.exceptions import QueueFull


class SchedulesView(StrictView):
    problems = {"post": (403, 409, 429)}

    @extend_schema(operation_id="schedules", responses={200: SchedulesShown})
    def get(self, request: APIRequest) -> HttpResponse:
        """Your schedules, by name."""
        found = mine(request).order_by("name")
        return json({"results": [schedule_as_json(schedule) for schedule in found]})

    @extend_schema(operation_id="add_schedule", request=ScheduleBody, responses={201: ScheduleShown})
    def post(self, request: APIRequest) -> HttpResponse:
        """Has a request submitted at set times, from now on."""
        fields = self.body(request, ScheduleBody)
        fields.pop("payload")
        rate_limit.take(request, rate_limit.SUBMIT.claim(str(owner(request).id)))
        made = writing.add(owner(request).id, payload_of(request), fields)
        return json(schedule_as_json(own(request, str(made.id))), 201, {"Location": f"{request.path}/{made.id}"})


class ScheduleView(StrictView):
    problems = {"patch": (403, 429)}

    @extend_schema(operation_id="schedule", responses={200: ScheduleShown})
    def get(self, request: APIRequest, schedule_id: str) -> HttpResponse:
        """One of your schedules."""
        return json(schedule_as_json(own(request, schedule_id)))

    @extend_schema(operation_id="change_schedule", request=ScheduleChange, responses={200: ScheduleShown})
    def patch(self, request: APIRequest, schedule_id: str) -> HttpResponse:
        """Changes what you name; what you leave out stays. `cron` takes the place of `every_seconds`, and back."""
        found = own(request, schedule_id)
        fields = self.body(request, ScheduleChange)
        payload = payload_of(request) if "payload" in fields else None
        fields.pop("payload", None)
        rate_limit.take(request, rate_limit.SUBMIT.claim(str(owner(request).id)))
        try:
            writing.change(owner(request).id, found.id, payload, fields)
        except Schedule.DoesNotExist:
            raise NotFound from None
        return json(schedule_as_json(own(request, schedule_id)))

    @extend_schema(operation_id="remove_schedule", responses={204: None})
    def delete(self, request: APIRequest, schedule_id: str) -> Response:
        """Removes it. What it submitted stays."""
        own(request, schedule_id).delete()
        return Response(status=204)


class PauseView(StrictView):
    @extend_schema(operation_id="pause_schedule", request=None, responses={200: ScheduleShown})
    def post(self, request: APIRequest, schedule_id: str) -> HttpResponse:
        """Has it due no more until it is resumed."""
        own(request, schedule_id).pause()
        return json(schedule_as_json(own(request, schedule_id)))


class ResumeView(StrictView):
    @extend_schema(operation_id="resume_schedule", request=None, responses={200: ScheduleShown})
    def post(self, request: APIRequest, schedule_id: str) -> HttpResponse:
        """Has it due again from now on; what it was paused for is not missed."""
        own(request, schedule_id).resume()
        return json(schedule_as_json(own(request, schedule_id)))


class RunNowView(StrictView):
    problems = {"post": (403, 409, 429)}

    @extend_schema(operation_id="run_schedule", request=None, responses={200: ScheduleShown})
    def post(self, request: APIRequest, schedule_id: str) -> HttpResponse:
        """Submits its request now, beside its due times; `last_request` names it."""
        found = own(request, schedule_id)
        rate_limit.take(request, rate_limit.SUBMIT.claim(str(owner(request).id)))
        try:
            run_now(found)
        except QueueFull as full:
            raise too_much(request, full, 1) from None
        except Schedule.DoesNotExist:
            raise NotFound from None
        return json(schedule_as_json(own(request, schedule_id)))


def owner(request: APIRequest) -> User:
    return cast(User, request.user)


def payload_of(request: APIRequest) -> str:
    """The payload as the text that was sent."""
    return payload_text(request.raw_body) or "null"  # type: ignore[attr-defined]  # the parser's


def mine(request: APIRequest) -> QuerySet[Any]:
    return Schedule.objects.filter(user=owner(request)).defer("payload").annotate(text=Cast("payload", TextField()))


def own(request: APIRequest, schedule_id: str) -> Any:
    """The caller's schedule of that id. Raises NotFound."""
    found = mine(request).filter(id=identified(schedule_id)).first()
    if found is None:
        raise NotFound
    return found


def schedule_as_json(schedule: Any) -> dict[str, Any]:
    """A schedule as the API shows it."""
    last: UUID | None = schedule.last_request_id
    return {
        "id": schedule.id,
        "name": schedule.name,
        "kind": schedule.kind,
        "version": schedule.version,
        "payload": orjson.Fragment(schedule.text),
        "cron": schedule.cron or None,
        "time_zone": schedule.time_zone,
        "every_seconds": schedule.every_seconds,
        "missed": schedule.missed,
        "enabled": schedule.enabled,
        "next_at": schedule.upcoming(),
        "last_due_at": schedule.last_due_at,
        "last_request": last,
        "last_error": schedule.last_error or None,
        "created_at": schedule.created_at,
    }
