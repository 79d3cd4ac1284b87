"""GET /api/v1/auth/me/export: all that is kept of the caller, a JSON object a line, streamed while it is read."""

import threading
import time
from collections.abc import Iterator
from uuid import UUID

import orjson
from django.db import connection
from django.http import StreamingHttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiResponse, extend_schema

from accounts.audit import Event, record
from accounts.authentication import UserRequest
from accounts.models import User
from project.rest.problems import ServiceUnavailable, TooManyRequests
from project.rest.renderers import OPTIONS
from project.rest.views import StrictView
from project.web import rate_limit
from queues.operations.export import records

AT_ONCE = 2  # of one process: each holds a thread and a connection to PostgreSQL
AGAIN_SECONDS = 10  # after which to try again, where there is no place
LONGEST_SECONDS = 1200.0  # who reads slower than that gets no `end`
CHUNK = 64 * 1024
HEADERS = {"Content-Disposition": 'attachment; filename="export.jsonl"', "X-Accel-Buffering": "no"}


class Places:
    """Who exports in this process: AT_ONCE users, each once."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.taken: set[UUID] = set()

    def take(self, user_id: UUID) -> None:
        """Raises TooManyRequests and ServiceUnavailable."""
        with self.lock:
            if user_id in self.taken:
                raise TooManyRequests("You have an export under way; wait for its end.", retry_after=AGAIN_SECONDS)
            if len(self.taken) >= AT_ONCE:
                raise ServiceUnavailable("Others export at the moment; try again.", retry_after=AGAIN_SECONDS)
            self.taken.add(user_id)

    def give_back(self, user_id: UUID) -> None:
        with self.lock:
            self.taken.remove(user_id)


_places = Places()


class ExportView(StrictView):
    problems = {"get": (429,)}

    @extend_schema(
        operation_id="export_me",
        responses={(200, "application/x-ndjson"): OpenApiResponse(OpenApiTypes.STR, "A JSON object a line.")},
    )
    def get(self, request: UserRequest) -> StreamingHttpResponse:
        """Writes out all that is kept of you.

        Profile, sessions, security events, idempotency keys, queue, and every request with its attempts: a JSON object
        a line, its sort under `record`. The last one is `{"record": "end", "records": n}`; an export without it was
        interrupted.
        """
        export = Export(request.user)
        try:
            rate_limit.take(request, rate_limit.EXPORTS.claim(str(request.user.id)))
            record(Event.EXPORTED, request.user.id, request=request)
        except Exception:
            export.close()
            raise
        return StreamingHttpResponse(export, content_type="application/x-ndjson", headers=HEADERS)


class Export:
    """The lines, in chunks. It takes a place, which is free again when it has been read or its client has gone."""

    def __init__(self, user: User) -> None:
        _places.take(user.id)
        self.user = user
        self.until = time.monotonic() + LONGEST_SECONDS
        self.lock = threading.Lock()
        self.over = False

    def __iter__(self) -> Iterator[bytes]:
        chunk = bytearray()
        try:
            for line in records(self.user):
                chunk += orjson.dumps(line, option=OPTIONS | orjson.OPT_APPEND_NEWLINE)
                if len(chunk) >= CHUNK:
                    yield bytes(chunk)
                    chunk.clear()
                    if time.monotonic() > self.until:
                        return
            yield bytes(chunk)
        finally:
            self.close()
            if not connection.in_atomic_block:  # a test's
                connection.close()  # this thread streams outside of the slots (project/web/concurrency.py)

    def close(self) -> None:
        with self.lock:
            if not self.over:
                self.over = True
                _places.give_back(self.user.id)
