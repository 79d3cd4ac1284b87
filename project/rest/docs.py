"""The OpenAPI document and two ways to read it: local files alone, no inline script."""

import hashlib
from functools import cache
from typing import Any

import orjson
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.cache import patch_cache_control
from django.views.decorators.http import condition, require_safe
from drf_spectacular.generators import SchemaGenerator

from project.rest.renderers import default

# Swagger UI and ReDoc set styles from scripts, and ReDoc searches in a worker made from a blob.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; font-src 'self';"
    " connect-src 'self'; worker-src blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@cache
def document() -> bytes:
    """Made once a process: it follows from the code."""
    generator: Any = SchemaGenerator()
    return orjson.dumps(generator.get_schema(request=None, public=True), default, orjson.OPT_INDENT_2)


def etag(request: HttpRequest) -> str:
    return f'"{hashlib.sha256(document()).hexdigest()[:16]}"'


@require_safe
@condition(etag_func=etag)
def schema(request: HttpRequest) -> HttpResponse:
    response = HttpResponse(document(), "application/json")
    patch_cache_control(response, no_cache=True)
    return response


@require_safe
def swagger(request: HttpRequest) -> HttpResponse:
    return page(request, "docs/swagger.html")


@require_safe
def redoc(request: HttpRequest) -> HttpResponse:
    return page(request, "docs/redoc.html")


def page(request: HttpRequest, template: str) -> HttpResponse:
    response = render(request, template)
    response["Content-Security-Policy"] = POLICY
    return response
