"""The body of a submission in the OpenAPI document: one schema for each kind that there is a handler for."""

import re
from typing import Any

from drf_spectacular.extensions import OpenApiSerializerExtension
from drf_spectacular.plumbing import ResolvedComponent
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse

from project.rest.openapi import without_extensions
from queues import kinds
from queues.kinds import Kind

IDEMPOTENCY = [
    OpenApiParameter(
        "Idempotency-Key",
        {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]{1,255}$"},
        OpenApiParameter.HEADER,
        description="The same key and body get the first answer again within 24 h, also where it was lost on its way.",
    ),
    OpenApiParameter(
        "Idempotent-Replayed", str, OpenApiParameter.HEADER, response=[202], description="`true`: it is a repetition."
    ),
]
LOCATION = OpenApiParameter(
    "Location", str, OpenApiParameter.HEADER, response=[202], description="Where to look at the request."
)
CONDITION = [
    OpenApiParameter("If-None-Match", str, OpenApiParameter.HEADER, description="The ETag of what you have."),
    OpenApiParameter("ETag", str, OpenApiParameter.HEADER, response=[200, 304]),
]
NOT_MODIFIED = OpenApiResponse(description="What If-None-Match names is still so.")


class SubmissionSchema(OpenApiSerializerExtension):  # type: ignore[no-untyped-call]  # drf-spectacular has no types
    """One of the kinds, each with its payload's schema."""

    target_class = "queues.api.serializers.SubmissionBody"

    def get_name(self, auto_schema: Any, direction: Any) -> str:
        return "Submission"

    def map_serializer(self, auto_schema: Any, direction: Any) -> dict[str, Any]:
        common = without_extensions(auto_schema, self.target, direction)["properties"]
        open_to_all = [kind for kind in kinds.offered() if kind.permission is None]  # the document is nobody's own
        each = [_component(auto_schema.registry, kind, common) for kind in open_to_all]
        return {"required": ["kind", "payload"], "oneOf": each}


def _component(registry: Any, kind: Kind, common: dict[str, Any]) -> dict[str, Any]:
    """A reference to the schema of one kind's submission, which is added to the document."""
    name = f"Submission_{kind.name}_v{kind.version}"
    newest = kinds.find(kind.name).version == kind.version
    exactly: dict[str, Any] = {"const": kind.version}
    version = {"anyOf": [exactly, {"type": "null"}]} if newest else exactly
    schema = {
        "type": "object",
        "description": kind.description,
        "properties": {
            **common,
            "kind": {"const": kind.name},
            "version": {**version, "description": common["version"]["description"]},
            "payload": _payload(registry, kind, name),
        },
        "required": ["kind", "payload"] + ([] if newest else ["version"]),
        "additionalProperties": False,
    }
    return _add(registry, name, schema)


def _payload(registry: Any, kind: Kind, prefix: str) -> dict[str, Any]:
    """The payload's JSON Schema; what it refers to becomes part of the document under names of its own."""
    if kind.schema is None:
        return {}
    schema = kind.schema.model_json_schema(ref_template=f"#/components/schemas/{prefix}.{{model}}")
    for model, definition in schema.pop("$defs", {}).items():
        name = f"{prefix}.{re.sub(r'[^A-Za-z0-9._-]', '_', model)}"
        _add(registry, name, definition)
    return schema


def _add(registry: Any, name: str, schema: dict[str, Any]) -> dict[str, Any]:
    """Add a schema to the document; the reference to it."""
    component: Any = ResolvedComponent(  # type: ignore[no-untyped-call]  # drf-spectacular has no types
        name=name, type=ResolvedComponent.SCHEMA, schema=schema, object=name
    )
    registry.register_on_missing(component)
    reference: dict[str, Any] = component.ref
    return reference
