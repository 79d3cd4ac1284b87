"""The kind `http.call`: calls somebody else's HTTP service in its user's order."""

from http import HTTPStatus
from typing import Any

from processing.handlers import HandlerRequest, Reject, handler
from processing.http_call.client import Answer, follow
from processing.http_call.schema import Call
from processing.http_call.transport import Budget, CallFailed, GivenUp


class ServerFailed(CallFailed):
    """The server answered that it failed."""


@handler(
    "http.call",
    schema=Call,
    max_attempts=5,
    time_limit=90,
    description="Makes an HTTP call. Its result is {status, url, headers, body, body_encoding, truncated}: header "
    "names in lower case, repeated ones joined with commas; the body cut at 64 KiB, as text or base64. 5xx and failed "
    "connections are tried again, 4xx are failures. Addresses that are not public are refused.",
)
def call(request: HandlerRequest, payload: Call) -> dict[str, Any] | None:
    budget = Budget(payload.timeout, lambda: request.cancelled)
    try:
        # The same in every attempt: the server can tell a repetition from a second call.
        answer = follow(payload, {"Idempotency-Key": str(request.id)}, budget)
    except GivenUp:
        return None
    if answer.status >= 500 or answer.status < 200:
        raise ServerFailed(f"The server answered {_named(answer)}.")
    if answer.status >= 400:
        raise Reject(f"The server answered {_named(answer)}.")
    return answer.as_result()


def _named(answer: Answer) -> str:
    try:
        return f"{answer.status} {HTTPStatus(answer.status).phrase}"
    except ValueError:
        return str(answer.status)
