"""From an exception to an answer: whatever goes wrong leaves as the problem that tells the client about it."""

from typing import Any

import orjson
import structlog
from django.core.exceptions import BadRequest, PermissionDenied, RequestDataTooBig, SuspiciousOperation
from django.db import InterfaceError, OperationalError
from django.http import Http404, HttpResponse, HttpResponseBase, UnreadablePostError
from django.http.multipartparser import MultiPartParserError
from rest_framework import exceptions
from rest_framework.response import Response
from rest_framework.views import set_rollback

from project.rest.problems import (
    BodyTooLarge,
    FieldError,
    Forbidden,
    Invalid,
    NotFound,
    Problem,
    ServiceUnavailable,
    Unauthenticated,
    for_status,
)

CONTENT_TYPE = "application/problem+json"

log = structlog.get_logger(__name__)


def exception_handler(exc: Exception, context: dict[str, Any]) -> Response | None:
    """DRF's EXCEPTION_HANDLER: a problem for everything that is not a crash; a crash goes on to `process_exception`."""
    problem = problem_for(exc)
    if problem is None:
        return None
    set_rollback()
    request = context["request"]
    body = problem.body(getattr(request, "request_id", ""))
    return Response(body, problem.status_code, headers=problem.headers, content_type=CONTENT_TYPE)


def problem_for(exc: Exception) -> Problem | None:
    """The problem that tells a client about `exc`, or None when it is a fault of ours."""
    match exc:
        case Problem():
            return exc
        case exceptions.ValidationError():
            return Invalid(*field_errors(exc.get_full_details()))
        case exceptions.NotAuthenticated() | exceptions.AuthenticationFailed():
            return Unauthenticated()
        case exceptions.APIException():
            return for_status(exc.status_code, str(exc.detail))
        case Http404():
            return NotFound()
        case PermissionDenied():
            return Forbidden()
        case RequestDataTooBig():
            return BodyTooLarge()
        case BadRequest() | SuspiciousOperation() | MultiPartParserError():
            return Problem()
        case UnreadablePostError():
            return Problem("The body did not come to its end.")
        case OperationalError() | InterfaceError():
            # PostgreSQL is away, or gave up on a lock or a time limit. The guard in every WHERE makes a repeat safe.
            log.warning("database_unavailable", error=str(exc).strip().splitlines()[:1])
            return ServiceUnavailable()
    return None


def field_errors(details: Any, path: str = "") -> list[FieldError]:
    """DRF's nested error details, flat: one entry a message, under the field's dotted path."""
    if isinstance(details, dict) and set(details) != {"message", "code"}:
        return [
            error
            for key, value in details.items()
            for error in field_errors(value, _join(path, "" if key == "non_field_errors" else str(key)))
        ]
    if isinstance(details, list):
        nested = any(isinstance(entry, dict) and "message" not in entry for entry in details)
        return [
            error
            for index, entry in enumerate(details)
            if entry
            for error in field_errors(entry, _join(path, str(index)) if nested else path)
        ]
    return [FieldError(path, str(details["code"]), str(details["message"]))]


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path and key else path or key


def respond(problem: Problem, request_id: str) -> HttpResponse:
    """The problem as a plain Django answer, for everything outside DRF's views."""
    body = orjson.dumps(problem.body(request_id))
    return HttpResponse(body, CONTENT_TYPE, problem.status_code, headers=problem.headers)


def unify(response: HttpResponseBase, request_id: str) -> HttpResponse:
    """An error answer that somebody else made (Django's own HTML, a bare 405), as a problem with the same status."""
    kept = {name: value for name, value in response.items() if not name.lower().startswith("content-")}
    return respond(for_status(response.status_code, headers=kept), request_id)
