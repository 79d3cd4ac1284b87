"""What may be asked for: each kind of request, by name and version, with the schema of its payload."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from typing import TYPE_CHECKING, Any

from django.conf import settings
from pydantic import BaseModel

from queues.exceptions import UnknownKind
from queues.states import OnFailure

if TYPE_CHECKING:
    from accounts.models import User

Permission = str | Callable[["User"], bool]


@dataclass(frozen=True)
class Kind:
    """A kind of work. `backoff` and `backoff_cap` are seconds: the delay doubles from the first up to the second."""

    name: str
    version: int
    description: str
    schema: type[BaseModel] | None
    max_attempts: int
    time_limit: float
    on_failure: OnFailure
    backoff: float
    backoff_cap: float
    atomic: bool
    permission: Permission | None = None  # who may ask for it: queues/permissions.py

    def delay(self, attempt: int) -> float:
        """Seconds to wait after the attempt of that number failed: exponential, with full jitter on its upper half."""
        longest = min(self.backoff_cap, self.backoff * 2.0 ** min(attempt - 1, 60))
        return longest * random.uniform(0.5, 1)  # noqa: S311  (spreads load, guards nothing)

    @cached_property
    def json_schema(self) -> dict[str, Any]:
        """The payload's JSON Schema; without a schema of its own a kind takes any JSON value."""
        return self.schema.model_json_schema() if self.schema else {}


_kinds: dict[tuple[str, int], Kind] = {}
_newest: dict[str, Kind] = {}


def register(kind: Kind) -> None:
    """Make `kind` known. Raises ValueError when its name and version are taken."""
    if (kind.name, kind.version) in _kinds:
        raise ValueError(f"The kind {kind.name!r} version {kind.version} has two handlers; give one another version.")
    _kinds[kind.name, kind.version] = kind
    if kind.name not in _newest or _newest[kind.name].version < kind.version:
        _newest[kind.name] = kind


def find(name: str, version: int | None = None) -> Kind:
    """The kind of that name and version (the newest if None). Raises UnknownKind."""
    kind = _newest.get(name) if version is None else _kinds.get((name, version))
    if kind is None:
        raise UnknownKind(name if version is None else f"{name} version {version}")
    return kind


def all_kinds() -> list[Kind]:
    """Every kind that there is a handler for, by name and version."""
    return [_kinds[key] for key in sorted(_kinds)]


def is_offered(name: str) -> bool:
    """Whether KINDS lets kinds of that name be asked for. What was accepted before runs all the same."""
    return not settings.KINDS or any(fnmatchcase(name, pattern) for pattern in settings.KINDS)


def offered() -> list[Kind]:
    """Every kind that may be asked for, by name and version."""
    return [kind for kind in all_kinds() if is_offered(kind.name)]


def find_offered(name: str, version: int | None = None) -> Kind:
    """The kind of that name and version (the newest if None) to ask for. Raises UnknownKind."""
    if not is_offered(name):
        raise UnknownKind(name)
    return find(name, version)
