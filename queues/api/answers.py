"""How answers are written: JSON past DRF's rendering, with an ETag for what may be known already."""

import hashlib
from functools import lru_cache
from typing import Any

import orjson
from django.http import HttpResponse, HttpResponseNotModified
from django.utils.http import parse_etags

from project.rest.renderers import OPTIONS
from queues import kinds
from queues.representation.response_cache import CachedAnswer


def unless_known(if_none_match: str, kept: CachedAnswer) -> HttpResponse:
    """The answer with its ETag; 304 and no body for who has it already."""
    if is_known(if_none_match, kept):
        return HttpResponseNotModified(headers={"ETag": kept.etag})
    return HttpResponse(kept.body, "application/json", headers={"ETag": kept.etag})


def is_known(if_none_match: str, kept: CachedAnswer) -> bool:
    """Whether who sends this If-None-Match has the answer already."""
    known = parse_etags(if_none_match) if if_none_match else ()
    return "*" in known or kept.etag in (one.removeprefix("W/") for one in known)


def tagged(body: bytes) -> CachedAnswer:
    """An answer with its strong ETag."""
    return CachedAnswer(f'"{hashlib.blake2b(body, digest_size=12).hexdigest()}"', body)


@lru_cache(64)
def kinds_answer(some: tuple[kinds.Kind, ...]) -> CachedAnswer:
    """The answer that shows these kinds, made once: they never change while a process lives."""
    return tagged(encoded([kind_as_json(kind) for kind in some]))


def kind_as_json(kind: kinds.Kind) -> dict[str, Any]:
    return {
        "kind": kind.name,
        "version": kind.version,
        "description": kind.description,
        "schema": kind.json_schema,
        "max_attempts": kind.max_attempts,
        "time_limit": kind.time_limit,
        "on_failure": kind.on_failure.value,
    }


def json(data: Any, status: int = 200, headers: dict[str, str] | None = None) -> HttpResponse:
    """An answer past DRF's negotiation and rendering, which cost more than orjson."""
    return HttpResponse(encoded(data), "application/json", status, headers=headers)


def encoded(data: Any) -> bytes:
    return orjson.dumps(data, option=OPTIONS)
