"""Plain pages for who arrives by a link or by hand: what this is, where everything is, what each problem means."""

from typing import NamedTuple

import orjson
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.cache import patch_vary_headers
from django.views.decorators.http import require_safe

from project.rest.exception_handler import respond
from project.rest.problems import NotFound

POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
ICON = (
    b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32"><rect width="32" height="32" rx="6" fill="#264b5d"/>'
    b'<g fill="#fff"><rect x="6" y="7" width="20" height="4" rx="2"/><rect x="6" y="14" width="14" height="4" rx="2"/>'
    b'<rect x="6" y="21" width="8" height="4" rx="2"/></g></svg>'
)
PLACES = {
    "requests": "/api/v1/requests",
    "queue": "/api/v1/queue",
    "events": "/api/v1/queue/events",
    "kinds": "/api/v1/kinds",
    "register": "/api/v1/auth/register",
    "token": "/api/v1/auth/token",
    "me": "/api/v1/auth/me",
    "schema": "/api/schema",
    "docs": "/api/docs",
    "redoc": "/api/redoc",
    "health": "/health/ready",
}


class Meaning(NamedTuple):
    """What the `type` of a problem means, and what its reader can do."""

    status: int
    means: str
    do: str


MEANINGS = {
    "bad-request": Meaning(400, "The request could not be read.", "Check the path, the headers and the body."),
    "bad-host": Meaning(
        400,
        "The Host header names a host that is not served here.",
        "Use the address that your operator gave you. Operators list the names in ALLOWED_HOSTS.",
    ),
    "validation": Meaning(
        400, "One or more fields do not fit.", "Each entry of `errors` names a field and says what fits. Send it again."
    ),
    "not-authenticated": Meaning(
        401,
        "No access token came with the request.",
        "Get a token from POST /api/v1/auth/token and send it as Authorization: Bearer <token>.",
    ),
    "wrong-credentials": Meaning(
        401, "The name and the password do not fit together.", "Check both, and try again; too many tries answer 429."
    ),
    "session-ended": Meaning(
        401,
        "The session of this token has ended: by logout or by an operator.",
        "Log in again: POST /api/v1/auth/token.",
    ),
    "token-invalid": Meaning(401, "The token is not one of ours.", "Log in again: POST /api/v1/auth/token."),
    "token-expired": Meaning(
        401, "The access token has expired.", "Get a new one with your refresh token: POST /api/v1/auth/token/refresh."
    ),
    "forbidden": Meaning(403, "You are known, but may not do this.", "Ask an operator for the right to do it."),
    "registration-closed": Meaning(
        403, "Nobody can register here by themselves.", "Ask an operator for an account (REGISTRATION)."
    ),
    "not-found": Meaning(
        404,
        "There is nothing here that you may see.",
        "Check the path and the id. What belongs to somebody else answers the same.",
    ),
    "method-not-allowed": Meaning(
        405, "This path does not serve that method.", "The header Allow names the methods that it serves."
    ),
    "conflict": Meaning(
        409,
        "The request or the queue is not in a state that allows this, for example because it is final already.",
        "Read it again, and decide with what it shows now.",
    ),
    "length-required": Meaning(
        411, "The body came in chunks, without its length.", "Send a Content-Length; most clients do by themselves."
    ),
    "body-too-large": Meaning(
        413, "The body is larger than this route takes.", "Send less at once. `detail` says how much fits."
    ),
    "unsupported-media-type": Meaning(
        415,
        "The body is of a type that is not read here.",
        "Send Content-Type: application/json, in UTF-8 and not compressed.",
    ),
    "unprocessable": Meaning(422, "The request contradicts an earlier one.", "Read `detail`, and ask for one thing."),
    "key-reused": Meaning(
        422,
        "This Idempotency-Key came before, with another body or to another path.",
        "Use a new key for each new request, and the same key only to repeat one.",
    ),
    "key-in-use": Meaning(
        409,
        "The first call with this Idempotency-Key is still under way.",
        "Repeat it with the same key after as many seconds as Retry-After says.",
    ),
    "too-many-requests": Meaning(
        429, "A limit on calls is used up for now.", "Wait for as many seconds as Retry-After says, then go on."
    ),
    "queue-full": Meaning(
        429,
        "As many of your requests wait as your queue holds, or too many were given up behind one that is not done.",
        "Wait until some are done: Retry-After says for how long. Or cancel some, the first one first.",
    ),
    "too-many-bytes": Meaning(
        429,
        "As many bytes of yours wait, or are stored, as may: `errors` says which.",
        "Waiting: come back after Retry-After, or cancel some. Stored: old requests have to be removed first.",
    ),
    "too-many-streams": Meaning(
        429, "You have as many event streams open as you may.", "Close one, or share one between your windows."
    ),
    "internal": Meaning(
        500, "Something broke on our side.", "Report the `request_id`. The log has the cause under it."
    ),
    "mail-off": Meaning(
        503,
        "This deployment sends no mail, so that it can neither confirm addresses nor reset passwords.",
        "Ask an operator to set your password. Operators name a mail server in EMAIL_URL.",
    ),
    "unavailable": Meaning(
        503,
        "Something that this needs is away for the moment. Nothing that was accepted is lost.",
        "Try again after as many seconds as Retry-After says. An Idempotency-Key makes that safe.",
    ),
}


@require_safe
def home(request: HttpRequest) -> HttpResponse:
    """What this is, and where everything is."""
    return page(request, "pages/home.html", {})


@require_safe
def problem(request: HttpRequest, name: str) -> HttpResponse:
    """What the problem of that name means, and what to do."""
    meaning = MEANINGS.get(name)
    if meaning is None:
        return respond(NotFound(), request.request_id)  # type: ignore[attr-defined]  # the middleware's
    return page(request, "pages/problem.html", {"name": name, "meaning": meaning})


@require_safe
def places(request: HttpRequest) -> HttpResponse:
    """The API's root: where everything is."""
    return HttpResponse(orjson.dumps(PLACES), "application/json")


@require_safe
def icon(request: HttpRequest) -> HttpResponse:
    return HttpResponse(ICON, "image/svg+xml", headers={"Cache-Control": "public, max-age=86400"})


def is_for_a_person(request: HttpRequest) -> bool:
    """Whether a browser shows the answer: it asks for HTML first, and programs do not."""
    if request.path_info.startswith("/api/"):
        return False
    return request.get_preferred_type(["application/problem+json", "text/html"]) == "text/html"


def nowhere(request: HttpRequest) -> HttpResponse:
    """For a person whose address leads nowhere."""
    answer = page(request, "pages/nowhere.html", {})
    answer.status_code = 404
    patch_vary_headers(answer, ["Accept"])
    return answer


def page(request: HttpRequest, template: str, context: dict[str, object]) -> HttpResponse:
    response = render(request, template, context)
    response["Content-Security-Policy"] = POLICY
    return response
