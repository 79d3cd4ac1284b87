"""The fast path of the requests that come most often: a plain submission that is accepted, and plain reads.

An ASGI application in front of Django's. `POST /api/v1/requests` with a JSON body and nothing out of the ordinary is
answered here, on the event loop, as `views.RequestsView` would, and committed together with its neighbours. So is
`GET` of a request that does not run, and of the kinds; the list and the queue are read in a thread. Whatever is not
plain, does not fit or is refused goes on to Django as it came, and nothing of it is left behind: every refusal is
worded there. What is left out here is Django's and DRF's work around a view, which took longer than the view.
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from io import BytesIO
from typing import Any, Protocol, TypeVar, cast

import structlog
from django.conf import settings
from django.core.exceptions import MiddlewareNotUsed
from django.core.handlers.wsgi import WSGIRequest
from django.http import HttpResponse, HttpResponseBase
from django.urls import resolve
from django.utils.module_loading import import_string

from accounts.tokens import Claims
from project.telemetry import tracing
from project.telemetry.metrics import count_answer
from project.web import rate_limit
from project.web.middleware import Edge, request_id_for
from project.web.threads import Receive, Scope, Send
from project.web.unread_body import SILENT_SECONDS
from queues import kinds
from queues.api.answers import encoded, is_known, kinds_answer, tagged
from queues.api.plain import plain_length, plain_read, plainly_submitted, received, replay, verified
from queues.api.requests import NOBODYS, UUID_TEXT, identified, listed
from queues.api.slow_kinds import SlowKinds
from queues.enqueue.group_commit import GroupCommit
from queues.enqueue.permissions import known_to_may_ask, open_to_all
from queues.exceptions import SessionOver
from queues.representation import shape
from queues.representation.group_read import GroupRead
from queues.representation.queue_summary import summary
from queues.representation.response_cache import CachedAnswer
from queues.representation.rows import RequestRow, own_queue
from queues.values import Accepted, SubmissionCall

T = TypeVar("T")


class Application(Protocol):
    """Django's, with threads that run other things as well (project/web/threads.py)."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None: ...

    async def run(self, do: Callable[..., T], *values: Any) -> T: ...


Headers = list[tuple[bytes, bytes]]

SUBMIT, KINDS, QUEUE = "/api/v1/requests", "/api/v1/kinds", "/api/v1/queue"
ONE = SUBMIT + "/"
ALLOWED = {SUBMIT: "GET, HEAD, POST", KINDS: "GET, HEAD", QUEUE: "GET, HEAD", ONE + str(NOBODYS): "GET, HEAD"}

FRESH_SECONDS = 0.05  # a queue that was read longer ago, because all threads were taken, is read again
FIRST_PAGE = {"limit": 50, "order": "desc"}  # what ListQuery makes of no query
OWN = (b"content-length", b"x-request-id")  # each answer has its own
# The middleware that is known here: what SURROUNDING adds to an answer depends on the host and the scheme alone, and
# the last one has nothing to do for these paths.
SURROUNDING = ["django.middleware.security.SecurityMiddleware", "corsheaders.middleware.CorsMiddleware"]
KNOWN = ["project.web.middleware.Edge", *SURROUNDING, "project.web.middleware.Under"]

log = structlog.get_logger()


def in_front_of(application: Application) -> "Application | FastPath":
    """An ASGI application with the fast path before it, unless settings.MIDDLEWARE does what is not done there."""
    if settings.MIDDLEWARE == KNOWN:
        return FastPath(application)
    log.warning("no_fast_path", known=KNOWN, found=settings.MIDDLEWARE)
    return application


class FastPath:
    """An ASGI application that answers what is plain and leaves all else to another one. `close` ends its threads."""

    def __init__(self, application: Application) -> None:
        self.application = application
        self.commits, self.reads = GroupCommit(), GroupRead()
        self.routes = {path: resolve(path).route for path in (SUBMIT, KINDS, QUEUE, ONE + str(NOBODYS))}
        self.edge = Edge(lambda _: HttpResponse())
        self.headers = lru_cache(256)(self._headers)
        self.slow = SlowKinds()

    def close(self) -> None:
        self.commits.close()
        self.reads.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path, method = scope["path"], scope.get("method")
        left: Receive | None = receive
        if path == SUBMIT and method == "POST":
            left = await self.submit(scope, receive, send)
        elif method == "GET" and path in (SUBMIT, QUEUE):
            left = await self.read_in_thread(scope, receive, send)
        elif method == "GET" and (path == KINDS or (path.startswith(ONE) and UUID_TEXT.fullmatch(path[len(ONE) :]))):
            left = await self.read(scope, receive, send)
        if left is not None:
            await self.application(scope, left, send)

    async def submit(self, scope: Scope, receive: Receive, send: Send) -> Receive | None:
        """Accept it and answer; else what Django is to receive."""
        arrived = time.perf_counter()
        sent = dict(scope["headers"])
        length = plain_length(scope, sent)
        claims = verified(sent) if length else None
        headers = claims and self.headers(SUBMIT, *_place(scope, sent))
        if not claims or not headers:
            return receive
        try:
            async with asyncio.timeout(SILENT_SECONDS):
                body = await received(receive, length)
        except TimeoutError:
            raise ConnectionResetError("the client stopped sending") from None
        submission = plainly_submitted(body, self.slow)
        if submission is None or not known_to_may_ask(claims.user_id, submission.kind):
            return replay(body, receive)
        trace = request_id_for(sent.get(b"x-request-id", b"").decode("latin-1"))
        try:
            result = await self.accept(SubmissionCall(claims.user_id, claims.session_id, submission, trace), sent)
            answer = encoded(shape.new(result[0])) if result else b""
        except Exception as failure:
            await self.failed(scope, send, SUBMIT, trace, failure, arrived)
            return None
        if result is None:
            return replay(body, receive)
        own = _encoded({"location": f"{SUBMIT}/{submission.id}", **rate_limit.headers(result[1])})
        await self.answer(send, 202, [*headers, *own], trace, answer)
        count_answer(self.routes[SUBMIT], "POST", 202, arrived)
        return None

    async def accept(
        self, ask: SubmissionCall, sent: dict[bytes, bytes]
    ) -> tuple[Accepted, list[rate_limit.Taken]] | None:
        """As `GroupCommit.accept` does, within a span where that is wanted."""
        if tracing.tracer is None:
            return await self.commits.accept(ask)
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in sent.items()}
        kind = ask.submission.kind.name
        with tracing.tracer.submit(kind, ask.submission.id, 1, headers) as traceparent:
            result = await self.commits.accept(replace(ask, traceparent=traceparent))
            if result is None:
                raise tracing.LeftToOthers
            return result
        return None

    async def read(self, scope: Scope, receive: Receive, send: Send) -> Receive | None:
        """Answer what is asked for; else what Django is to receive."""
        arrived = time.perf_counter()
        sent = dict(scope["headers"])
        asked = None if scope["path"] == KINDS else identified(scope["path"][len(ONE) :])
        path = KINDS if asked is None else ONE + str(NOBODYS)
        claims = verified(sent) if plain_read(scope, sent) else None
        headers = claims and self.headers(path, *_place(scope, sent))
        if not claims or not headers or (asked is None and not open_to_all()):
            return receive
        trace = request_id_for(sent.get(b"x-request-id", b"").decode("latin-1"))
        try:
            found = await self.reads.find(claims.user_id, claims.session_id, request_id=asked)
            kept = None
            if found is not None:
                kept = kinds_answer(tuple(kinds.offered())) if asked is None else answer_with(found.request)
        except Exception as failure:
            await self.failed(scope, send, path, trace, failure, arrived)
            return None
        if kept is None:
            return receive
        status = 304 if is_known(sent.get(b"if-none-match", b"").decode("latin-1"), kept) else 200
        tagged_headers = [*headers, (b"etag", kept.etag.encode())]
        if status == 304:
            tagged_headers = [one for one in tagged_headers if one[0] != b"content-type"]
        await self.answer(send, status, tagged_headers, trace, b"" if status == 304 else kept.body)
        count_answer(self.routes[path], "GET", status, arrived)
        return None

    async def read_in_thread(self, scope: Scope, receive: Receive, send: Send) -> Receive | None:
        """Answer with the first page of the caller's requests, or with their queue; else what Django is to receive."""
        arrived = time.perf_counter()
        sent, path = dict(scope["headers"]), scope["path"]
        claims = verified(sent) if plain_read(scope, sent) else None
        headers = claims and self.headers(path, *_place(scope, sent))
        if not claims or not headers:
            return receive
        trace = request_id_for(sent.get(b"x-request-id", b"").decode("latin-1"))
        request = _request("GET", path, *_place(scope, sent))
        try:
            if path == QUEUE:
                body = await self.application.run(lambda: encoded(summary(claims.user_id, claims.session_id)))
            else:
                body = await self.first_page(request, claims)
        except SessionOver:
            return receive
        except Exception as failure:
            await self.failed(scope, send, path, trace, failure, arrived)
            return None
        await self.answer(send, 200, headers, trace, body)
        count_answer(self.routes[path], "GET", 200, arrived)
        return None

    async def first_page(self, request: WSGIRequest, claims: Claims) -> bytes:
        """The caller's newest requests. Raises SessionOver."""
        found, since = await self.reads.find(claims.user_id, claims.session_id, queue=True), time.monotonic()
        if found is None:
            raise SessionOver

        def made() -> bytes:
            fresh = time.monotonic() - since < FRESH_SECONDS
            return listed(request, found.queue if fresh else own_queue(claims.user_id, claims.session_id), FIRST_PAGE)

        return await self.application.run(made)

    async def answer(self, send: Send, status: int, headers: Headers, trace: str, body: bytes) -> None:
        own = [(b"content-length", str(len(body)).encode()), (b"x-request-id", trace.encode())]
        await send({"type": "http.response.start", "status": status, "headers": [*headers, *own]})
        await send({"type": "http.response.body", "body": body})

    async def failed(self, scope: Scope, send: Send, path: str, trace: str, failure: Exception, arrived: float) -> None:
        """The problem for what nobody knows the outcome of, or that could not be read."""
        host, scheme, forwarded = _place(scope, dict(scope["headers"]))
        request = _request(scope["method"], path, host, scheme, forwarded, trace)
        self.edge.arrive(request)
        problem = cast(HttpResponse, self.edge.process_exception(request, failure))
        self.surrounded(request, problem, path)
        headers = [one for one in _encoded(dict(problem.items())) if one[0] not in OWN]
        await self.answer(send, problem.status_code, headers, trace, problem.content)
        count_answer(self.routes[path], scope["method"], problem.status_code, arrived)

    def _headers(self, path: str, host: str | None, scheme: str, forwarded: str | None) -> Headers | None:
        """What the middleware adds to each answer; None where it answers itself: a host not served, a redirect."""
        request = _request("POST" if path == SUBMIT else "GET", path, host, scheme, forwarded)
        answer = HttpResponse(content_type="application/json")
        if self.edge.arrive(request) is not None or self.surrounded(request, answer, path) is not answer:
            return None
        return [one for one in _encoded(dict(answer.items())) if one[0] not in OWN]

    def surrounded(self, request: WSGIRequest, response: HttpResponse, path: str) -> HttpResponseBase:
        """What DRF and the middleware make of this answer to the request."""
        response["Allow"] = ALLOWED[path]

        def layer(_: Any) -> Any:
            return response

        for name in reversed(SURROUNDING):
            with suppress(MiddlewareNotUsed):
                layer = import_string(name)(layer)
        return self.edge.leave(request, layer(request))


def _request(
    method: str, path: str, host: str | None, scheme: str, forwarded: str | None, trace: str = ""
) -> WSGIRequest:
    """As much of a request as the middleware looks at."""
    fixed = {"REQUEST_METHOD": method, "PATH_INFO": path, "SERVER_NAME": "", "SERVER_PORT": "0"}
    sent = {"HTTP_HOST": host, "HTTP_X_FORWARDED_PROTO": forwarded, "HTTP_X_REQUEST_ID": trace or None}
    known = {name: value for name, value in sent.items() if value is not None}
    return WSGIRequest({**fixed, **known, "wsgi.url_scheme": scheme, "wsgi.input": BytesIO()})


def _place(scope: Scope, sent: dict[bytes, bytes]) -> tuple[str | None, str, str | None]:
    """What the host and the scheme are said to be."""
    host, forwarded = sent.get(b"host"), sent.get(b"x-forwarded-proto")
    decoded = None if forwarded is None else forwarded.decode("latin-1")
    return None if host is None else host.decode("latin-1"), scope["scheme"], decoded


def _encoded(headers: dict[str, str]) -> Headers:
    return [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]


def answer_with(request: RequestRow | None) -> CachedAnswer | None:
    """A request and its ETag; None where more has to be asked for: its progress, or how many ahead were given up."""
    if request is None:
        return None
    if request.finished_at is None and (request.running or request.queue.given_up_ahead):
        return None
    return tagged(encoded(shape.one(request)))
