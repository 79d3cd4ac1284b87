"""What a handler returns, as JSON text: plain values at once, everything else as Pydantic writes it.

What is no JSON is refused with a sentence that names its place: `result.pages[3].total: NaN is not JSON.` NaN and
Infinity are never `null` in silence.
"""

from collections import deque
from collections.abc import Coroutine, Generator, Iterable, Iterator
from dataclasses import fields, is_dataclass
from math import isfinite, isnan
from typing import Any

import orjson
from django.conf import settings
from pydantic import BaseModel, ConfigDict, TypeAdapter
from pydantic_core import to_json

# What orjson would write in other words than Pydantic is left to Pydantic.
PLAIN = orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_SUBCLASS
AS_PYDANTIC: TypeAdapter[Any] = TypeAdapter(Any, config=ConfigDict(ser_json_inf_nan="constants"))  # NaN is left to see
MOST_LEVELS = 250  # orjson ends at 254
LONGEST_PLACE = 300  # characters
INT64 = range(-(2**63), 2**63)

Path = tuple[str | int, ...]


class InvalidResult(Exception):
    """What the handler returned cannot be kept. It has done its work: another attempt would only repeat that."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(f"{place(path)}: {why}")


def as_json(result: Any) -> str:
    """The result as JSON text of at most RESULT_LIMIT bytes. Raises InvalidResult."""
    text = _at_once(result)
    if text is None:
        try:
            text = orjson.dumps(_jsonable(result, (), frozenset()))
        except RecursionError:
            raise InvalidResult((), _TOO_DEEP) from None
    if len(text) > settings.ENV.result_limit:
        raise InvalidResult((), f"It has {len(text)} bytes of JSON; RESULT_LIMIT is {settings.ENV.result_limit}.")
    return text.decode()


def place(path: Path) -> str:
    """Where in the result: result.pages[3].total."""
    steps = (f".{step}" if isinstance(step, str) and step.isidentifier() else f"[{step!r}]" for step in path)
    told = "result" + "".join(steps)
    return told if len(told) <= LONGEST_PLACE else f"{told[:LONGEST_PLACE]} .."


def _at_once(result: Any) -> bytes | None:
    """The text of a plain result; None: it has to be looked at piece by piece."""
    try:
        text = orjson.dumps(result, option=PLAIN)
    except TypeError:
        return None
    if result is None or b"null" not in text:
        return text
    try:
        constants = to_json(result, inf_nan_mode="constants")  # orjson writes null for NaN and Infinity, too
    except ValueError:
        return None
    return None if b"NaN" in constants or b"Infinity" in constants else text


_TOO_DEEP = f"It has more than {MOST_LEVELS} levels."


def _jsonable(value: Any, path: Path, around: frozenset[int]) -> Any:
    """The value in what orjson knows, as Pydantic would write it. `around` are the ids of what it is inside of."""
    if value is None or value is True or value is False:
        return value
    if type(value) is str:
        return _text(value, path)
    if type(value) is int:
        if value not in INT64:
            raise InvalidResult(path, "The integer does not fit into 64 bits.")
        return value
    if type(value) is float:
        if not isfinite(value):
            raise InvalidResult(path, f"{'NaN' if isnan(value) else 'Infinity'} is not JSON.")
        return value
    if id(value) in around:
        raise InvalidResult(path, "It contains itself.")
    if len(path) > MOST_LEVELS:
        raise InvalidResult((), _TOO_DEEP)
    around |= {id(value)}
    if isinstance(value, dict):
        return _object(value, path, around)
    if isinstance(value, list | tuple | set | frozenset | deque):
        return _array(value, path, around)
    return _as_pydantic(value, path, around)


def _object(value: dict[Any, Any], path: Path, around: frozenset[int]) -> dict[str, Any]:
    members: dict[str, Any] = {}
    for key, member in value.items():
        name = _text(key if type(key) is str else _key(key, path), path)
        if name in members:
            raise InvalidResult(path, f"Two of its keys are {name!r} in JSON.")
        members[name] = _jsonable(member, (*path, name), around)
    return members


def _array(value: Iterable[Any], path: Path, around: frozenset[int]) -> list[Any]:
    items: list[Any] = []
    for item in value:
        items.append(_jsonable(item, (*path, len(items)), around))
    return items


def _key(key: Any, path: Path) -> str:
    try:
        (name,) = AS_PYDANTIC.dump_python({key: None}, mode="json")
    except Exception:
        raise InvalidResult(path, f"A key of the type {_name(key)} is not JSON.") from None
    return str(name)


def _as_pydantic(value: Any, path: Path, around: frozenset[int]) -> Any:
    """A model, dataclass, date, enum .. as Pydantic writes it."""
    if isinstance(value, Coroutine):
        value.close()  # nobody will await it
        raise InvalidResult(path, "A coroutine is not JSON: await it.")
    if isinstance(value, Generator):
        raise InvalidResult(path, "A generator is not JSON: return a list.")
    try:
        written = AS_PYDANTIC.dump_python(value, mode="json", warnings=False)
    except Exception as error:
        for name, member in _members(value):
            _jsonable(member, (*path, name), around)  # says which of them it is
        raise InvalidResult(path, _why(value, error)) from None
    return _jsonable(written, path, around)


def _members(value: Any) -> Iterator[tuple[str, Any]]:
    """The fields of a model or dataclass."""
    if isinstance(value, BaseModel):
        yield from value
    elif is_dataclass(value):
        yield from ((field.name, getattr(value, field.name, None)) for field in fields(value))


def _why(value: Any, error: Exception) -> str:
    if isinstance(value, bytes | bytearray):
        return "The bytes are not text in UTF-8; base64 would be."
    if isinstance(value, BaseModel) or is_dataclass(value):
        return f"{_name(value)} cannot be written: {error}"
    return f"{_name(value)} is not JSON."


def _text(text: str, path: Path) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidResult(path, "Half a surrogate pair is no character.") from None
    return text


def _name(value: Any) -> str:
    return type(value).__qualname__
