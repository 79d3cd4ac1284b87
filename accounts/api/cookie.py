"""The refresh token in a browser: in a cookie that no script can read, and that no other site can make the browser use.

A call with `Accept-Session: cookie` takes the refresh token from the cookie and gets the next one there, instead of in
the body. Three things stand against other sites:

- The cookie is HttpOnly, Secure, SameSite=Strict, and sent to `/api/v1/auth/` alone.
- Such a call needs the header `X-Requested-With`. A form cannot send it, and a script of another origin has to ask
  first (CORS); it is told no, since the settings `CORS_..` allow neither this header nor credentials.
- `Sec-Fetch-Site`, where the browser sends it, has to be `same-origin`.

Browsers accept Secure cookies from http://localhost and http://127.0.0.1, too (Safari does not).
"""

from typing import Any

from django.conf import settings
from drf_spectacular.utils import OpenApiParameter
from rest_framework.response import Response

from accounts.models import Tokens
from accounts.tokens import LONGEST
from project.rest.problems import FieldError, Forbidden, Invalid, Unauthenticated

NAME = "refresh"
PATH = "/api/v1/auth/"
PARAMETERS = [
    OpenApiParameter(
        "Accept-Session",
        {"type": "string", "enum": ["cookie"]},
        OpenApiParameter.HEADER,
        description="For browsers: the refresh token travels in an HttpOnly cookie, not in the body. Needs"
        " `X-Requested-With`, and the same origin.",
    ),
    OpenApiParameter(
        "X-Requested-With", str, OpenApiParameter.HEADER, description="Any value; asked for with `Accept-Session`."
    ),
]


class NoCookie(Unauthenticated):
    detail_text = "This browser has no session; log in."


def wanted(request: Any) -> bool:
    """Whether the caller wants the refresh token in the cookie. Raises Invalid, and Forbidden for another site."""
    asked = request.META.get("HTTP_ACCEPT_SESSION")
    if asked is None:
        return False
    if asked.strip().lower() != "cookie":
        raise Invalid(FieldError("Accept-Session", "invalid", "Send cookie, or leave it out."))
    if not request.META.get("HTTP_X_REQUESTED_WITH"):
        raise Forbidden("Accept-Session: cookie needs the header X-Requested-With.")
    if request.META.get("HTTP_SEC_FETCH_SITE", "same-origin") != "same-origin":
        raise Forbidden("Accept-Session: cookie is for pages of this origin.")
    return True


def read(request: Any) -> str:
    """The refresh token in the cookie. Raises NoCookie."""
    token = request.COOKIES.get(NAME, "")
    if not 0 < len(token) <= LONGEST:
        raise NoCookie
    return str(token)


def answer(tokens: Tokens) -> Response:
    """The access token in the body, the refresh token in the cookie."""
    response = Response({"access": tokens.access})
    response.set_cookie(
        NAME,
        tokens.refresh,
        max_age=settings.ENV.refresh_token_seconds,
        path=PATH,
        secure=True,
        httponly=True,
        samesite="Strict",
    )
    return response


def drop(response: Response) -> Response:
    """The answer that takes the cookie away, whatever it holds."""
    response.set_cookie(NAME, "", max_age=0, path=PATH, secure=True, httponly=True, samesite="Strict")
    return response
