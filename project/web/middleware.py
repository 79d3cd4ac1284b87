"""What happens around every request: its id, the shape of its errors, its limits' headers; and who skips the rest."""

import re
import time
from collections.abc import Callable
from typing import Any

import structlog
import uuid_utils
from django.conf import settings
from django.core.exceptions import DisallowedHost
from django.core.signals import got_request_exception
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.middleware.gzip import GZipMiddleware
from django.utils.module_loading import import_string

from project.rest import exception_handler, pages, parsers, problems
from project.telemetry import tracing
from project.telemetry.metrics import NOWHERE, count_answer
from project.web import rate_limit
from project.web.threads import WAITED

GetResponse = Callable[[HttpRequest], HttpResponseBase]
ACCEPTED_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
HTML_UNDER = ("/admin/",)
# Probes and Prometheus ask by address. Nothing there makes a link of the host; the proxy in front passes /metrics on to
# nobody.
UNDER_ANY_HOST = re.compile(r"/health/|/metrics\Z")


def request_id_for(sent: str) -> str:
    """A request's id, by its X-Request-ID or a new one."""
    return sent if ACCEPTED_ID.fullmatch(sent) else str(uuid_utils.uuid7())


def identify(sent: str) -> str:
    """A request's id; what this thread logs from now on has it."""
    request_id = request_id_for(sent)
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(request_id=request_id)
    return request_id


class Edge:
    """Outermost. Gives every request an id and every answer its X-Request-ID, RateLimit headers and problem+json.

    The id is the caller's X-Request-ID where that is 1 to 64 of `A-Za-z0-9._-`, a UUID version 7 otherwise. It is
    `request.request_id`, and `request_id` in every line logged meanwhile. Pages under /admin/ keep their HTML errors.
    """

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        if tracing.tracer is None:
            return self.answer(request)
        with tracing.tracer.caller(request.headers):
            return self.answer(request)

    def answer(self, request: HttpRequest) -> HttpResponseBase:
        arrived = request.META.get(WAITED) or time.perf_counter()
        refusal = self.arrive(request)
        response = self.leave(request, refusal or self.get_response(request))
        if hasattr(response, "until"):
            return response  # it is asked for once more
        count_answer(route(request), request.method, response.status_code, arrived)
        return response

    def arrive(self, request: HttpRequest) -> HttpResponse | None:
        sent = request.META.get("HTTP_X_REQUEST_ID", "")
        request_id = identify(sent)
        request.request_id = request_id  # type: ignore[attr-defined]  # set here for all
        request.rate_limits = []  # type: ignore[attr-defined]  # project/web/rate_limit.py adds to it
        if "HTTP_TRANSFER_ENCODING" in request.META and not request.META.get("CONTENT_LENGTH"):
            return exception_handler.respond(
                problems.LengthRequired(), request_id
            )  # Django would take the body for empty
        try:
            if not UNDER_ANY_HOST.match(request.path_info):
                request.get_host()
        except DisallowedHost:
            return exception_handler.respond(
                problems.Problem("This host is not served here.", name="bad-host"), request_id
            )
        return None

    def process_exception(self, request: HttpRequest, exc: Exception) -> HttpResponse | None:
        """A problem for what a view raised, a crash included: Django would show a page, in development a traceback."""
        if request.path_info.startswith(HTML_UNDER) and not isinstance(exc, problems.Problem):
            return None
        problem = exception_handler.problem_for(exc)
        if problem is None:
            exception_handler.log.error("crash", path=request.path_info, exc_info=exc)
            got_request_exception.send(sender=type(self), request=request)
            problem = problems.Crash()
        return exception_handler.respond(problem, request.request_id)  # type: ignore[attr-defined]  # set here for all

    def leave(self, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        request_id: str = request.request_id  # type: ignore[attr-defined]  # set here for all
        under_html = request.path_info.startswith(HTML_UNDER)
        if (
            response.status_code >= 400
            and not response.get("Content-Type", "").startswith((exception_handler.CONTENT_TYPE, "application/json"))
            and not under_html
        ):
            response = exception_handler.unify(response, request_id)
        if response.status_code == 404 and not under_html and pages.is_for_a_person(request):
            response = pages.nowhere(request)
        response["X-Request-ID"] = request_id
        if isinstance(response, HttpResponse):
            response.headers.setdefault("Content-Length", str(len(response.content)))
        if request.path_info.startswith("/api/"):
            response.headers.setdefault("Cache-Control", "no-store")
            response.headers.setdefault("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
        counted: list[Any] = request.rate_limits  # type: ignore[attr-defined]  # set here for all
        for name, value in rate_limit.headers(counted).items():
            response[name] = value
        return response


def route(request: HttpRequest) -> str:
    return request.resolver_match.route if request.resolver_match else NOWHERE


class Under:
    """Runs the middleware of settings.MIDDLEWARE_UNDER for the paths below its prefix, and for no others.

    The admin needs sessions, CSRF and messages; the API's paths do not, and pay nothing for them.
    """

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response
        self.chains: dict[str, GetResponse] = {}
        self.view_hooks: dict[str, list[Any]] = {}
        for prefix, names in settings.MIDDLEWARE_UNDER.items():
            chain: GetResponse = get_response
            hooks: list[Any] = []
            for name in reversed(names):
                layer = import_string(name)(chain)
                if hasattr(layer, "process_view"):
                    hooks.insert(0, layer.process_view)
                chain = layer
            self.chains[prefix], self.view_hooks[prefix] = chain, hooks
        self.prefixes = tuple(self.chains)

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        prefix = self.prefix(request)
        return self.chains[prefix](request) if prefix else self.get_response(request)

    def process_view(self, request: HttpRequest, view: Any, args: Any, kwargs: Any) -> HttpResponseBase | None:
        prefix = self.prefix(request)
        for hook in self.view_hooks[prefix] if prefix else ():
            if response := hook(request, view, args, kwargs):
                return response
        return None

    def prefix(self, request: HttpRequest) -> str | None:
        if not request.path_info.startswith(self.prefixes):
            return None
        return next(prefix for prefix in self.prefixes if request.path_info.startswith(prefix))


class Compressed(GZipMiddleware):
    """Whole static files in a third of their size, for who reads gzip."""

    def process_request(self, request: HttpRequest) -> None:
        """A browser sends back the weak tag of what it has; WhiteNoise knows the strong one."""
        if "HTTP_IF_NONE_MATCH" in request.META:
            request.META["HTTP_IF_NONE_MATCH"] = request.META["HTTP_IF_NONE_MATCH"].removeprefix("W/")

    def process_response(self, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        """A part of a file, and what has no body, go as they are."""
        whole = request.method == "GET" and response.status_code == 200
        return super().process_response(request, response) if whole else response


class LittleFromStrangers:
    """Refuses large forms of who is not logged in: a thread reads them, however slowly they come.

    Stands before the check of CSRF tokens, which reads the form.
    """

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        return self.get_response(request)

    def process_view(self, request: HttpRequest, *_: Any) -> HttpResponse | None:
        try:
            parsers.check_length(request.META, settings.BODY_LIMIT)
        except problems.BodyTooLarge as refusal:
            if not request.user.is_authenticated:
                return exception_handler.respond(refusal, request.request_id)  # type: ignore[attr-defined]
        return None


class AdminPolicy:
    """The admin's Content-Security-Policy: its own scripts and styles, nothing inline."""

    POLICY = (
        "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; form-action 'self';"
        " frame-ancestors 'none'"
    )

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        response = self.get_response(request)
        response["Content-Security-Policy"] = self.POLICY
        return response
