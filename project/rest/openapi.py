"""The OpenAPI document: every error a route can answer with is in it, as the one schema `Problem`."""

from typing import Any

from drf_spectacular.extensions import OpenApiSerializerExtension
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.plumbing import ResolvedComponent

from project.rest import examples

PROBLEM = {
    "type": "object",
    "description": "RFC 9457. Compare `type`; show `title` and `detail`; report `request_id`.",
    "required": ["type", "title", "status", "detail", "request_id"],
    "properties": {
        "type": {"type": "string", "format": "uri-reference", "example": "/problems/validation"},
        "title": {"type": "string"},
        "status": {"type": "integer", "minimum": 400, "maximum": 599},
        "detail": {"type": "string"},
        "request_id": {"type": "string", "description": "The X-Request-ID of the answer."},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["field", "code", "detail"],
                "properties": {
                    "field": {
                        "type": "string",
                        "description": "Dotted: `payload.items.3.name`; empty: the whole.",
                    },
                    "code": {"type": "string"},
                    "detail": {"type": "string"},
                },
            },
        },
    },
}
MEANINGS = {
    400: "Something in the request does not fit; `errors` names the fields.",
    401: "No access token, or one that is not valid any more.",
    403: "Not allowed.",
    404: "There is nothing here, or it is somebody else's.",
    405: "The method is not served here.",
    409: "The state of things does not allow this.",
    411: "A body without Content-Length.",
    413: "The body is too large.",
    415: "Not application/json in UTF-8, or compressed.",
    422: "The Idempotency-Key came before, with another body or to another path.",
    429: "Too many; Retry-After says when to come back.",
    500: "Something broke on our side.",
    503: "The service cannot do this at the moment; Retry-After says when to try again.",
}


def without_extensions(auto_schema: Any, serializer: Any, direction: Any) -> dict[str, Any]:
    """What drf-spectacular makes of a serializer by itself. Its documentation shows extensions this private method.

    Source: drf-spectacular, "Extension blueprints". `tests/project/test_docs.py` fails when it changes.
    """
    schema: dict[str, Any] = auto_schema._map_serializer(serializer, direction, bypass_extensions=True)
    return schema


class StrictSchema(OpenApiSerializerExtension):
    """What a StrictSerializer does not declare it refuses, so its schema says so."""

    target_class = "project.rest.serializers.StrictSerializer"
    match_subclasses = True

    def map_serializer(self, auto_schema: AutoSchema, direction: Any) -> dict[str, Any]:
        schema = without_extensions(auto_schema, self.target, direction)
        if type(self.target).__doc__ is None:
            schema.pop("description", None)  # inherited: about the code
        return {**schema, "additionalProperties": False}


class ProblemSchema(AutoSchema):
    """Adds the problems that follow from what a route is. Others a view names in `problems = {"post": (409, 422)}`.

    `body_optional = True` says of a view that a header or cookie can stand for its body.
    """

    def get_operation(self, *args: Any, **kwargs: Any) -> dict[str, Any] | None:
        operation: dict[str, Any] | None = super().get_operation(*args, **kwargs)
        if operation is not None:
            if body := getattr(self.view, "delete_body", None) if self.method == "DELETE" else None:
                component = self.resolve_serializer(body, "request")  # of a DELETE, drf-spectacular shows none
                content = {"application/json": {"schema": component.ref}}
                operation["requestBody"] = {"content": content, "required": True}
            if getattr(self.view, "body_optional", False):
                operation["requestBody"].pop("required", None)
            for status in sorted(self.problem_statuses(operation)):
                operation["responses"].setdefault(str(status), self.problem(status))
            examples.add_to(operation)
        return operation

    def get_auth(self) -> list[dict[str, list[str]]]:
        # Both of our authentication classes are one to a client; settings name it in APPEND_COMPONENTS.
        return [{"Bearer": []}] if self.view.authentication_classes else []

    def problem_statuses(self, operation: dict[str, Any]) -> set[int]:
        statuses = {400, 500, 503, *getattr(self.view, "problems", {}).get(self.method.lower(), ())}
        if self.view.authentication_classes or operation["operationId"] in ("login", "refresh", "logout"):
            statuses.add(401)
        if "{" in self.path:
            statuses.add(404)
        if "requestBody" in operation:
            statuses |= {411, 413, 415}
        if getattr(self.view, "limited", False):
            statuses.add(429)
        return statuses

    def problem(self, status: int) -> dict[str, Any]:
        component = ResolvedComponent(name="Problem", type=ResolvedComponent.SCHEMA, object="Problem", schema=PROBLEM)
        self.registry.register_on_missing(component)
        answer: dict[str, Any] = {
            "description": MEANINGS[status],
            "content": {"application/problem+json": {"schema": component.ref}},
        }
        header = {401: "WWW-Authenticate", 429: "Retry-After", 503: "Retry-After"}.get(status)
        if header:
            answer["headers"] = {header: {"schema": {"type": "string"}, "required": True}}
        return answer
