"""GET /api/v1/auth/me/export: all that is kept of the caller, a JSON object a line, streamed while it is read."""

import threading
import time
from collections.abc import Iterator

import orjson
from django.db import Error as DatabaseError
from django.db import connection
from django.http import StreamingHttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiResponse, extend_schema

from accounts.audit import Event, record
from accounts.authentication import UserRequest
from accounts.models import User
from project.rest.problems import ServiceUnavailable
from project.rest.renderers import OPTIONS
from project.rest.views import StrictView
from project.web import rate_limit
from queues.operations.export import records

AT_ONCE = 2  # of one process: each holds a thread and a connection to PostgreSQL
LONGEST_SECONDS = 1200.0  # who reads slower than that gets no `end`
CHUNK = 64 * 1024
HEADERS = {"Content-Disposition": 'attachment; filename="export.jsonl"', "X-Accel-Buffering": "no"}

_places = threading.BoundedSemaphore(AT_ONCE)


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
        rate_limit.take(request, rate_limit.EXPORTS.claim(str(request.user.id)))
        if not _places.acquire(blocking=False):
            raise ServiceUnavailable("Others export at the moment; try again.", retry_after=10)
        try:
            record(Event.EXPORTED, request.user.id, request=request)
        except DatabaseError:
            _places.release()
            raise
        return StreamingHttpResponse(Export(request.user), content_type="application/x-ndjson", headers=HEADERS)


class Export:
    """The lines, in chunks. Its place is free again when it has been read or its client has gone."""

    def __init__(self, user: User) -> None:
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
                _places.release()
