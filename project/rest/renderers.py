"""JSON out: RFC 3339 times in UTC with a Z, UUIDs as text, JSON that is stored as text passed on as it is."""

from typing import Any

import orjson
from django.utils.functional import Promise
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.renderers import BaseRenderer
from rest_framework.utils.serializer_helpers import ReturnDict, ReturnList

OPTIONS = orjson.OPT_UTC_Z | orjson.OPT_NAIVE_UTC


class FastJSONRenderer(BaseRenderer):
    """DRF's renderer with orjson. Text that already is JSON goes out unparsed as `orjson.Fragment`."""

    media_type = "application/json"
    format = "json"
    charset = None

    def render(self, data: Any, accepted_media_type: str | None = None, renderer_context: Any = None) -> bytes:
        return b"" if data is None else orjson.dumps(data, default, OPTIONS)


def default(value: Any) -> Any:
    if isinstance(value, Promise):
        return str(value)
    if isinstance(value, ReturnDict | dict):
        return dict(value)
    if isinstance(value, ReturnList | list | tuple | set | frozenset):
        return list(value)
    raise TypeError(f"{type(value).__name__} is not JSON")


class JSONOnly(BaseContentNegotiation):
    """One format out, whatever Accept says; the parser by Content-Type."""

    def select_parser(self, request: Any, parsers: Any) -> Any:
        content_type = request.content_type.partition(";")[0].strip().lower()
        return next((parser for parser in parsers if parser.media_type == content_type), None)

    def select_renderer(self, request: Any, renderers: Any, format_suffix: str | None = None) -> Any:
        return renderers[0], renderers[0].media_type
