"""What a receiver gets: `{type, timestamp, data}`, where `data` is the request as GET shows it."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import orjson
from django.conf import settings

from processing.webhooks.models import Event
from project.rest.renderers import OPTIONS
from queues.models import Request
from queues.representation import shape

NULL = "null"


def bodies(deliveries: Sequence[Any]) -> dict[int, bytes]:
    """The bodies of these rows of NEXT, by id. One is missing: its request is deleted."""
    limit = settings.ENV.webhook_body_limit
    requests = _requests({row.request_id for row in deliveries if row.request_id is not None}, limit)
    written: dict[int, bytes] = {}
    for row in deliveries:
        if row.event == Event.TEST:
            written[row.id] = _written(row, {"message": "This is a test."})
        elif row.request_id in requests:
            data = _data(requests[row.request_id], row.event)
            body = _written(row, data)
            if len(body) > limit:
                body = _written(row, data | {"payload": None, "result": None, "cut": True})
            written[row.id] = body
    return written


def _requests(ids: set[UUID], limit: int) -> dict[UUID, Any]:
    """The requests with their texts; of large ones these stay where they are."""
    few = Request.objects.filter(id__in=ids).select_related("queue")
    found: dict[UUID, Any] = {request.id: request for request in shape.as_text(few.filter(bytes__lte=limit))}
    for large in few.filter(bytes__gt=limit).defer("payload", "result"):
        request: Any = large
        request.payload_text = request.result_text = NULL
        request.error_text = None if large.error is None else orjson.dumps(large.error).decode()
        request.cut = True
        found[large.id] = request
    return found


def _data(request: Any, event: str) -> dict[str, Any]:
    """It has the status that is told, whatever became of a blocked one meanwhile."""
    data = shape.one(request)
    return data | {"status": event.removeprefix("request."), "cut": getattr(request, "cut", False)}


def _written(row: Any, data: dict[str, Any]) -> bytes:
    return orjson.dumps({"type": row.event, "timestamp": row.created_at, "data": data}, option=OPTIONS)
