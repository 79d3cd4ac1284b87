"""JSON bodies, strictly: what is accepted can be stored and comes back unchanged.

Refused with 400, the field named: duplicate keys, U+0000 and lone surrogates (in keys too), NaN, Infinity, integers
beyond 64 bits, fractions beyond a double, more than `settings.JSON_DEPTH` levels, anything that is no JSON in UTF-8.
Too large is 413 before it is read; another type, charset or a compressed body is 415.
"""

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, NamedTuple

from django.conf import settings
from rest_framework.parsers import BaseParser

from project.rest.problems import BodyTooLarge, FieldError, Invalid, UnsupportedMediaType

INT64 = range(-(2**63), 2**63)


class StrictJSONParser(BaseParser):
    """DRF's parser for `application/json`. A view's `body_limit`, in bytes, replaces settings.BODY_LIMIT.

    The bytes as they came are kept as `request.raw_body`.
    """

    media_type = "application/json"

    def parse(self, stream: Any, media_type: str | None = None, parser_context: Any = None) -> Any:
        request = parser_context["request"]
        limit = getattr(parser_context["view"], "body_limit", None) or settings.BODY_LIMIT
        body = read(stream, request.META, limit)
        request.raw_body = body
        return loads(body)


def read(stream: Any, meta: dict[str, Any], limit: int) -> bytes:
    """The body of a request, at most `limit` bytes. Raises the problems 413 and 415."""
    if meta.get("HTTP_CONTENT_ENCODING", "identity").lower() != "identity":
        raise UnsupportedMediaType(headers={"Accept-Encoding": "identity"})
    parameters = meta.get("CONTENT_TYPE", "").lower().partition(";")[2]
    if "charset" in parameters and not re.search(r'(?:^|;)\s*charset="?utf-?8"?\s*(?:;|$)', parameters):
        raise UnsupportedMediaType()
    check_length(meta, limit)
    body: bytes = stream.read(limit + 1)
    if len(body) > limit:
        raise BodyTooLarge(f"The body has more than {limit} bytes.")
    return body


def check_length(meta: dict[str, Any], limit: int) -> None:
    """Raises BodyTooLarge for a body that is longer, by its Content-Length; Edge refuses one that has none."""
    length = int(meta.get("CONTENT_LENGTH") or 0)
    if length > limit:
        raise BodyTooLarge(f"The body has {length} bytes; {limit} are allowed.")


def loads(body: bytes) -> Any:
    """The value of a JSON text. Raises Invalid."""
    try:
        text = body.decode()
    except UnicodeDecodeError as broken:
        raise refusal("encoding", f"Byte {broken.start} is not UTF-8.") from None
    try:
        if not unclear(body):
            with suppress(_Unclear):
                value = QUICK.decode(text)
                return value if text.count("{") + text.count("[") <= settings.JSON_DEPTH else shallow(value)
        return checked(THOROUGH.decode(text))
    except RecursionError:
        raise too_deep() from None
    except json.JSONDecodeError as broken:
        raise refusal("json", f"Line {broken.lineno}, column {broken.colno} is not JSON: {broken.msg}.") from None


def unclear(body: bytes) -> bool:
    """Whether something in it may not fit: an escape, or a number of more than 18 digits or three in its exponent."""
    digits = body.translate(DIGITS_ALIKE)
    return any(number in digits for number in LONG_NUMBERS) or (b"\\u" in body and bool(BAD_ESCAPE.search(body)))


# Searching for fixed bytes, digits made alike first, takes a fifth of the time of a regular expression.
DIGITS_ALIKE = bytes.maketrans(b"123456789E", b"000000000e")
LONG_NUMBERS = (b"0" * 19, b"0e000", b"0e+000", b"0e-000")
BAD_ESCAPE = re.compile(rb"\\u(?:0000|[dD][89a-fA-F])")


class _Unclear(Exception):
    """The quick decoder met what only the thorough one can name."""


class Refused(NamedTuple):
    """Stands in the decoded value where something does not fit, until `checked` finds it and knows its path."""

    code: str
    detail: str


def checked(value: Any) -> Any:
    """`value`, when nothing in it is refused: no marker, text that can be stored, not too deep. Raises Invalid."""
    level: list[tuple[str, Any]] = [("", value)]
    for _ in range(settings.JSON_DEPTH + 1):
        if not level:
            break
        level = [inner for path, outer in level for inner in inside(path, outer)]
    return shallow(value)


def shallow(value: Any) -> Any:
    """`value`, when it is not too deep. Raises Invalid."""
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(settings.JSON_DEPTH):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, (dict, list))
        ]
        if not level:
            return value
    raise too_deep()


def inside(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    """The members of an array or object with their paths. Raises Invalid when `value` itself is refused."""
    if isinstance(value, Refused):
        raise refusal(value.code, value.detail, path)
    if isinstance(value, str):
        check_text(value, path)
    elif isinstance(value, dict):
        for key, member in value.items():
            check_text(key, path, "A key")
            yield f"{path}.{key}" if path else key, member
    elif isinstance(value, list):
        for index, member in enumerate(value):
            yield f"{path}.{index}" if path else str(index), member


def check_text(text: str, path: str, what: str = "The text") -> None:
    if "\0" in text:
        raise refusal("nul", f"{what} contains U+0000, which cannot be stored.", path)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise refusal("surrogate", f"{what} contains half a surrogate pair, which is no character.", path) from None


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise _Unclear
    return members


def unique_or_refused(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members: dict[str, Any] = {}
    for key, value in pairs:
        members[key] = Refused("duplicate", "The key occurs more than once.") if key in members else value
    return members


def no_constant(name: str) -> Any:
    raise _Unclear


def integer(digits: str) -> int | Refused:
    # 20 characters hold every 64-bit integer; int() is not asked about 5,000 digits.
    if len(digits) <= 20 and (number := int(digits)) in INT64:
        return number
    return Refused("range", "The integer does not fit into 64 bits.")


def fraction(digits: str) -> float | Refused:
    number = float(digits)
    vanished = number == 0 and any(digit in "123456789" for digit in re.split("[eE]", digits)[0])
    if number in (float("inf"), float("-inf")) or vanished:
        return Refused("range", "The number does not fit into a double.")
    return number


def constant_refused(name: str) -> Refused:
    return Refused("constant", f"{name} is not JSON.")


QUICK = json.JSONDecoder(object_pairs_hook=unique, parse_constant=no_constant)
THOROUGH = json.JSONDecoder(
    object_pairs_hook=unique_or_refused, parse_constant=constant_refused, parse_int=integer, parse_float=fraction
)


def too_deep() -> Invalid:
    return refusal("depth", f"The body has more than {settings.JSON_DEPTH} levels of arrays and objects.")


def refusal(code: str, detail: str, path: str = "") -> Invalid:
    # The path is made of the caller's keys: what UTF-8 cannot say is shown as an escape.
    return Invalid(FieldError(path.encode("utf-8", "backslashreplace").decode()[:200], code, detail))
