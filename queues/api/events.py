"""GET /api/v1/queue/events: Server-Sent Events of one's own queue. A thread opens them, the event loop sends them."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

from django.conf import settings
from django.http import StreamingHttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework.request import Request as APIRequest
from rest_framework.response import Response

from accounts.authentication import SessionTokenAuthentication, SignedTokenAuthentication
from queues.api.requests import OwnersView, caller
from queues.api.serializers import StreamQuery, TicketShown
from queues.live import tickets
from queues.live.change_feed import Follower
from queues.live.sse import Stream, streams

OPENING = b"retry: 2000\n\n"
HEARTBEAT = b":\n\n"
HEARTBEAT_SECONDS = 15.0

HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}

LAST_EVENT_ID = OpenApiParameter(
    "Last-Event-ID",
    str,
    OpenApiParameter.HEADER,
    description="The `id` of the last event you have: nothing that changed since is missed; some may come twice."
    " Without one, or with one that is too old or none of ours, you get the queue and all that is not final.",
)


class EventsView(OwnersView):
    http_method_names = ["get"]
    authentication_classes = (tickets.TicketAuthentication, SignedTokenAuthentication)
    query_serializer = StreamQuery
    problems = {"get": (429,)}

    @extend_schema(
        operation_id="events",
        parameters=[StreamQuery, LAST_EVENT_ID],
        responses={(200, "text/event-stream"): OpenApiResponse(OpenApiTypes.STR, "Events, until the stream ends.")},
    )
    def get(self, request: APIRequest) -> StreamingHttpResponse:
        """What happens in your queue, as it happens: Server-Sent Events.

        `event: request` has a request, as GET /api/v1/requests/{id} shows it, whenever its status or progress changes;
        `event: queue` has the queue, as GET /api/v1/queue shows it. Changes within milliseconds are told as the newest
        state. A comment comes at least every 15 seconds. The stream ends with its access token or session.
        """
        follower = Follower(caller(request), request.META.get("HTTP_LAST_EVENT_ID", ""))
        body = LoopsBody(streams.open(follower, settings.ENV.streams, settings.ENV.streams_per_user))
        return StreamingHttpResponse(cast(Any, body), content_type="text/event-stream", headers=HEADERS)


class TicketView(OwnersView):
    authentication_classes = (SessionTokenAuthentication,)

    @extend_schema(operation_id="events_ticket", request=None, responses={200: TicketShown})
    def post(self, request: APIRequest) -> Response:
        """A ticket that opens one event stream within 30 seconds, for clients that can send no header."""
        return Response({"ticket": tickets.issue(caller(request))})


class LoopsBody:
    """A stream's bytes, for an event loop; one that cannot send them for long is cancelled."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.over = False
        stream.abort = lambda: None  # it may never begin

    async def __aiter__(self) -> AsyncIterator[bytes]:
        loop, task, ready = asyncio.get_running_loop(), asyncio.current_task(), asyncio.Event()
        self.stream.wake = lambda: _soon(loop, ready.set)
        self.stream.abort = lambda: _soon(loop, task.cancel if task else ready.set)
        try:
            yield OPENING
            while not self.over:
                ready.clear()
                if due := self.due():
                    yield due
                    continue
                try:
                    async with asyncio.timeout(HEARTBEAT_SECONDS):
                        await ready.wait()
                except TimeoutError:
                    yield HEARTBEAT
        finally:
            self.close()

    def due(self) -> bytes:
        """What can be sent now: events, or a comment that says why the stream ends, or nothing yet."""
        if events := streams.take(self.stream):
            return events
        self.over = bool(self.stream.ended)
        return f": {self.stream.ended}\n\n".encode() if self.over else b""

    def close(self) -> None:
        streams.leave(self.stream)


def _soon(loop: asyncio.AbstractEventLoop, call: Any) -> None:
    """Have the loop call it, if there still is one."""
    if not loop.is_closed():
        loop.call_soon_threadsafe(call)
