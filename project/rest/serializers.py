"""Input taken as it is meant: a field we do not know is an error that names it, and text is text."""

from typing import Any

from rest_framework import serializers


class StrictSerializer(serializers.Serializer[Any]):
    """For bodies and query parameters. What it does not declare is refused, read-only fields included."""

    def to_internal_value(self, data: Any) -> Any:
        if isinstance(data, dict):
            known = {name for name, field in self.fields.items() if not field.read_only}
            unknown = [name for name in data if name not in known]
            if unknown:
                sentence = "This field is not known here."
                raise serializers.ValidationError({name: [sentence] for name in unknown}, code="unknown")
        return super().to_internal_value(data)


class Text(serializers.CharField):
    """A JSON string, untrimmed. DRF's own takes numbers for text."""

    def __init__(self, **kwargs: Any) -> None:
        if not kwargs.get("allow_blank"):
            kwargs.setdefault("min_length", 1)  # for the OpenAPI document; "" is refused as blank before
        super().__init__(trim_whitespace=False, **kwargs)

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            self.fail("invalid")
        return super().to_internal_value(data)
