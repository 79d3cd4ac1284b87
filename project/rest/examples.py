"""The examples of the API's documentation: each app tells them for its routes; project/rest/openapi.py puts them in.

tests/project/test_examples.py holds every route to it: a summary, a group, an example of each body, an example of
each error, and all of them fit the schemas beside which they stand.
"""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from project.rest.pages import MEANINGS
from project.rest.problems import FieldError, Problem

REQUEST_ID = "01938a6e-7d3c-7a51-9c1f-4e2d8b6a0f13"


class Error(NamedTuple):
    """An error that the route can answer with: its problem's name, its sentence, its fields."""

    name: str
    detail: str
    errors: tuple[tuple[str, str, str], ...] = ()


@dataclass(frozen=True)
class OperationExamples:
    tag: str
    summary: str
    request: Any = None
    answers: dict[int, Any] = field(default_factory=dict)
    errors: dict[int, tuple[Error, ...]] = field(default_factory=dict)  # instead of the usual ones of that status


_by_operation: dict[str, OperationExamples] = {}

EXPIRED = Error("token-expired", "The token has expired.")
NO_PARAMETER = ("x", "unknown", "This parameter is not known here.")
USUAL = {
    400: (Error("validation", "The request does not fit; see errors.", (NO_PARAMETER,)),),
    401: (
        Error("not-authenticated", "Send an access token: Authorization: Bearer <token>."),
        EXPIRED,
        Error("session-ended", "The session has ended; log in again."),
    ),
    403: (Error("forbidden", "You may not do this."),),
    404: (Error("not-found", "There is nothing here."),),
    405: (Error("method-not-allowed", "This method is not served here; Allow names those that are."),),
    409: (Error("conflict", "The state of things does not allow this."),),
    411: (Error("length-required", "Send the body with a Content-Length."),),
    413: (Error("body-too-large", "The body has 70000 bytes; 65536 are allowed."),),
    415: (Error("unsupported-media-type", "Send application/json in UTF-8, not compressed."),),
    422: (Error("key-reused", "This Idempotency-Key came before, with another body or to another path."),),
    429: (Error("too-many-requests", "Too many requests; Retry-After says when to come back."),),
    500: (Error("internal", "Something broke on our side. Name the request_id when you report it."),),
    503: (Error("unavailable", "The service cannot do this at the moment; try again."),),
}


def tell(operation_id: str, tag: str, summary: str, **examples: Any) -> None:
    """Have the route documented so. The order of the calls is the order in which the documentation shows them."""
    _by_operation[operation_id] = OperationExamples(tag, summary, **examples)


def add_to(operation: dict[str, Any]) -> None:
    """Put the route's summary, group and examples into its part of the document."""
    told = _by_operation.get(operation["operationId"])
    for status, answer in operation["responses"].items():
        content = answer.get("content", {})
        if "application/problem+json" in content:
            errors = (told.errors.get(int(status)) if told else None) or USUAL[int(status)]
            content["application/problem+json"]["examples"] = {
                error.name: problem(int(status), error) for error in errors
            }
    if told is None:
        return
    operation["tags"], operation["summary"] = [told.tag], told.summary
    if told.request is not None:
        operation["requestBody"]["content"]["application/json"]["example"] = told.request
    for number, body in told.answers.items():
        for media in operation["responses"][str(number)]["content"].values():
            media["example"] = body


def problem(status: int, error: Error) -> dict[str, Any]:
    fields = [FieldError(*one) for one in error.errors]
    body = Problem(error.detail, status=status, name=error.name, errors=fields).body(REQUEST_ID)
    return {"summary": MEANINGS[error.name].means, "value": body}


def in_order(result: dict[str, Any], **_: Any) -> dict[str, Any]:
    """drf-spectacular's hook: the paths in the order in which they were told, others last; no group without one."""
    order = {name: number for number, name in enumerate(_by_operation)}

    def place(path: str) -> int:
        return min(order.get(operation["operationId"], len(order)) for operation in result["paths"][path].values())

    paths = {path: result["paths"][path] for path in sorted(result["paths"], key=place)}
    used = {tag for operations in paths.values() for operation in operations.values() for tag in operation["tags"]}
    return {**result, "paths": paths, "tags": [tag for tag in result["tags"] if tag["name"] in used]}
