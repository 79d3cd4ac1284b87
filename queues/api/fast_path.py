"""The short way of the request that comes most often: a plain submission that is accepted.

A WSGI application in front of Django's. `POST /api/v1/requests` with a JSON body and nothing out of the ordinary is
answered here, as `views.RequestsView` would, and committed together with its neighbours. Whatever is not plain, does
not fit or is not accepted goes on to Django as it came, and nothing of it is left behind: every refusal is worded
there. What is left out here is Django's and DRF's work around a view, which took longer than the view.
"""

import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import lru_cache
from io import BytesIO
from typing import Any, cast

import structlog
from django.conf import settings
from django.core.exceptions import MiddlewareNotUsed
from django.core.handlers.wsgi import WSGIRequest
from django.db import connection
from django.http import HttpResponse, HttpResponseBase
from django.urls import resolve
from django.utils.module_loading import import_string

from accounts.authentication import bearer
from accounts.tokens import Claims
from project.rest.parsers import loads
from project.rest.problems import Problem
from project.telemetry.metrics import count_answer
from project.web import rate_limit
from project.web.middleware import Edge, identify
from queues.api.requests import encoded
from queues.enqueue.group_commit import GroupCommit
from queues.enqueue.parsing import read_one
from queues.permissions import known_to_may_ask
from queues.representation import shape
from queues.values import Ask, Submission

Environ = dict[str, Any]
Application = Callable[[Environ, Any], Iterable[bytes]]

PATH = "/api/v1/requests"
ALLOWED = "GET, HEAD, POST"
JSON = ("application/json", "application/json; charset=utf-8", "application/json;charset=utf-8")
UNUSUAL = {"HTTP_TRANSFER_ENCODING", "HTTP_CONTENT_ENCODING", "HTTP_IDEMPOTENCY_KEY", "HTTP_ORIGIN"}
# The middleware that is known here: what SURROUNDING adds to an answer depends on the host and the scheme alone, and
# the last one has nothing to do for this path.
SURROUNDING = ["django.middleware.security.SecurityMiddleware", "project.web.middleware.CrossOrigin"]
KNOWN = ["project.web.middleware.Edge", *SURROUNDING, "project.web.middleware.Under"]

log = structlog.get_logger()


def in_front_of(application: Application) -> Application:
    """A WSGI application with the short way before it, unless settings.MIDDLEWARE does what would not be done there."""
    if settings.MIDDLEWARE == KNOWN:
        return FastPath(application)
    log.warning("no_fast_path", known=KNOWN, found=settings.MIDDLEWARE)
    return application


class FastPath:
    """A WSGI application that accepts plain submissions and leaves all else to another one. `close` ends its thread."""

    def __init__(self, application: Application) -> None:
        self.application = application
        self.together = GroupCommit()
        self.close = self.together.close
        self.route = resolve(PATH).route
        self.edge = Edge(lambda _: HttpResponse())
        self.headers = lru_cache(64)(self._headers)

    def __call__(self, environ: Environ, start_response: Any) -> Iterable[bytes]:
        if environ["PATH_INFO"] != PATH or environ["REQUEST_METHOD"] != "POST" or not plain(environ):
            return self.application(environ, start_response)
        arrived = time.perf_counter()
        claims = verified(environ)
        headers = claims and self.headers(
            environ.get("HTTP_HOST"), environ["wsgi.url_scheme"], environ.get("HTTP_X_FORWARDED_PROTO")
        )
        if not claims or not headers:
            return self.application(environ, start_response)
        body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
        environ["wsgi.input"] = BytesIO(body)  # for Django, if it is to answer
        submission = plainly_submitted(body)
        if submission is None or not known_to_may_ask(claims.user_id, submission.kind):
            return self.application(environ, start_response)
        trace = identify(environ.get("HTTP_X_REQUEST_ID", ""))
        try:
            result = self.together.accept(Ask(claims.user_id, claims.session_id, submission, trace))
            answer = encoded(shape.new(result[0])) if result else b""
        except Exception as failure:
            return self.failed({**environ, "HTTP_X_REQUEST_ID": trace}, start_response, failure, arrived)
        if not result:
            return self.application(environ, start_response)
        own = {
            "Content-Length": str(len(answer)),
            "Location": f"{PATH}/{submission.id}",
            "X-Request-ID": trace,
            **rate_limit.headers(result[1]),
        }
        start_response("202 Accepted", [*headers, *own.items()])
        count_answer(self.route, "POST", 202, arrived)
        return [answer]

    def failed(self, environ: Environ, start_response: Any, failure: Exception, arrived: float) -> Iterable[bytes]:
        """The problem for a submission of which nobody knows whether it was accepted."""
        request = WSGIRequest(environ)
        self.edge.arrive(request)
        problem = cast(HttpResponse, self.edge.process_exception(request, failure))
        self.surrounded(request, problem)
        start_response(f"{problem.status_code} {problem.reason_phrase}", list(problem.items()))
        count_answer(self.route, "POST", problem.status_code, arrived)
        return [problem.content]

    def _headers(self, host: str | None, scheme: str, forwarded: str | None) -> list[tuple[str, str]] | None:
        """What the middleware adds to each answer; None where it answers itself: a host not served, a redirect."""
        sent = {"HTTP_HOST": host, "HTTP_X_FORWARDED_PROTO": forwarded, "wsgi.url_scheme": scheme}
        fixed = {"REQUEST_METHOD": "POST", "PATH_INFO": PATH, "SERVER_NAME": "", "SERVER_PORT": "0"}
        known = {name: value for name, value in sent.items() if value is not None}
        request = WSGIRequest({**fixed, **known, "wsgi.input": BytesIO()})
        accepted = HttpResponse(content_type="application/json")
        if self.edge.arrive(request) is not None or self.surrounded(request, accepted) is not accepted:
            return None
        return [(name, value) for name, value in accepted.items() if name not in ("Content-Length", "X-Request-ID")]

    def surrounded(self, request: WSGIRequest, response: HttpResponse) -> HttpResponseBase:
        """What DRF and the middleware make of this answer to the request."""
        response["Allow"] = ALLOWED

        def layer(_: Any) -> Any:
            return response

        for name in reversed(SURROUNDING):
            with suppress(MiddlewareNotUsed):
                layer = import_string(name)(layer)
        return self.edge.leave(request, layer(request))


def plain(environ: Environ) -> bool:
    """Whether the query and the headers ask for nothing but that this body be accepted."""
    length = environ.get("CONTENT_LENGTH", "")
    return (
        environ.get("CONTENT_TYPE", "").lower() in JSON
        and len(length) < 10
        and length.isascii()
        and length.isdigit()
        and 0 < int(length) <= settings.BODY_LIMIT
        and not environ.get("QUERY_STRING")
        and not environ.get("SCRIPT_NAME")
        and UNUSUAL.isdisjoint(environ)
    )


def verified(environ: Environ) -> Claims | None:
    """Who a signed token says is calling; None where Django has something to say to it."""
    try:
        return bearer(environ)
    except Problem:
        return None


def plainly_submitted(body: bytes) -> Submission | None:
    """What a body that fits asks for now; None where Django has something to say to it, be it that a schema crashed."""
    try:
        submission = read_one(loads(body), body)
    except Exception:
        return None
    finally:
        if connection.connection is not None:  # a schema looked into PostgreSQL: no thread here keeps a connection
            connection.close()
    return submission if submission.not_before is None else None
