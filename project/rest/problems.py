"""Every error the API answers, as `application/problem+json` (RFC 9457).

`type` is `/problems/<name>`, a URI reference that stays the same for the same cause; programs compare it and nothing
else, and people open it (`project/rest/pages.py`). Raise `Problem` or one of the classes below from anywhere under a
request; `project/rest/exception_handler.py` makes them, and the errors of Django, DRF and the database, into answers.
"""

from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any, NamedTuple

from rest_framework.exceptions import APIException

BEARER = 'Bearer realm="api"'


class FieldError(NamedTuple):
    """What is wrong with one field: its dotted path (`payload.items.3.name`), a code for programs, a sentence."""

    field: str
    code: str
    detail: str


class Problem(APIException):
    """An error answer. `name` becomes `/problems/<name>`; `retry_after` is in seconds."""

    status_code: int = 400
    name = "bad-request"
    detail_text = "The request cannot be understood."

    def __init__(
        self,
        detail: str | None = None,
        *,
        status: int | None = None,
        name: str | None = None,
        errors: Iterable[FieldError] = (),
        headers: Mapping[str, str] | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(detail or self.detail_text)
        self.status_code = status or self.status_code
        self.name = name or self.name
        self.errors = list(errors)
        self.headers = dict(headers or {})
        if retry_after is not None:
            self.headers["Retry-After"] = str(retry_after)

    def body(self, request_id: str) -> dict[str, Any]:
        body: dict[str, Any] = {
            "type": f"/problems/{self.name}",
            "title": HTTPStatus(self.status_code).phrase,
            "status": self.status_code,
            "detail": str(self.detail),
            "request_id": request_id,
        }
        if self.errors:
            body["errors"] = [error._asdict() for error in self.errors]
        return body


class Invalid(Problem):
    """400: fields that do not fit, each named."""

    name = "validation"
    detail_text = "The request does not fit; see errors."

    def __init__(self, *errors: FieldError) -> None:
        super().__init__(errors=errors)


class Unauthenticated(Problem):
    """401, always with WWW-Authenticate. `error` is RFC 6750's code, left out where no token was sent."""

    status_code = 401
    name = "not-authenticated"
    detail_text = "Send an access token: Authorization: Bearer <token>."

    def __init__(self, detail: str | None = None, *, name: str | None = None, error: str | None = None) -> None:
        challenge = f'{BEARER}, error="{error}"' if error else BEARER
        super().__init__(detail, name=name, headers={"WWW-Authenticate": challenge})


class Forbidden(Problem):
    status_code = 403
    name = "forbidden"
    detail_text = "You may not do this."


class NotFound(Problem):
    """404: the same bytes for what never was, what is gone and what is somebody else's."""

    status_code = 404
    name = "not-found"
    detail_text = "There is nothing here."


class MethodNotAllowed(Problem):
    status_code = 405
    name = "method-not-allowed"
    detail_text = "This method is not served here; Allow names those that are."


class Conflict(Problem):
    """409: right in itself, but not in the state things are in."""

    status_code = 409
    name = "conflict"
    detail_text = "The state of things does not allow this."


class LengthRequired(Problem):
    status_code = 411
    name = "length-required"
    detail_text = "Send the body with a Content-Length."


class BodyTooLarge(Problem):
    status_code = 413
    name = "body-too-large"
    detail_text = "The body is too large."


class UnsupportedMediaType(Problem):
    status_code = 415
    name = "unsupported-media-type"
    detail_text = "Send application/json in UTF-8, not compressed."


class Unprocessable(Problem):
    """422: an Idempotency-Key that came before with another body."""

    status_code = 422
    name = "unprocessable"
    detail_text = "The request contradicts an earlier one."


class TooManyRequests(Problem):
    """429; `retry_after` in seconds is a must."""

    status_code = 429
    name = "too-many-requests"
    detail_text = "Too many requests; Retry-After says when to come back."


class Crash(Problem):
    """500: our fault. The log has the cause under this request_id; the answer never has."""

    status_code = 500
    name = "internal"
    detail_text = "Something broke on our side. Name the request_id when you report it."


class ServiceUnavailable(Problem):
    """503: something we cannot do without is away for the moment."""

    status_code = 503
    name = "unavailable"
    detail_text = "The service cannot do this at the moment; try again."

    def __init__(self, detail: str | None = None, *, retry_after: int = 2) -> None:
        super().__init__(detail, retry_after=retry_after)


def for_status(status: int, detail: str | None = None, headers: Mapping[str, str] | None = None) -> Problem:
    """The problem for an error of which only the status is known."""
    kind = BY_STATUS.get(status) or (Crash if status >= 500 else Problem)
    return Problem(detail or kind.detail_text, status=status, name=kind.name, headers=headers)


BY_STATUS: dict[int, type[Problem]] = {
    kind.status_code: kind
    for kind in (
        Problem,
        Unauthenticated,
        Forbidden,
        NotFound,
        MethodNotAllowed,
        Conflict,
        LengthRequired,
        BodyTooLarge,
        UnsupportedMediaType,
        Unprocessable,
        TooManyRequests,
        Crash,
        ServiceUnavailable,
    )
}
