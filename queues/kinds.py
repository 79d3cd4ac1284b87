"""What may be asked for: each kind of request, by name and version, with the schema of its payload."""

import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from django.conf import settings
from pydantic import BaseModel

from queues.exceptions import UnknownKind
from queues.states import OnFailure

if TYPE_CHECKING:
    from accounts.models import User

Permission = str | Callable[["User"], bool]

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
MOST_STARTS = 100_000  # of a rate: each is kept for as long as it counts


class Rate(NamedTuple):
    """At most `most` begin within any `seconds`."""

    most: int
    seconds: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Of "100/m", "5/10s": a number, and a window of s, m, h or d. Raises ValueError with a sentence."""
        found = re.fullmatch(r"([1-9][0-9]{0,5})/([1-9][0-9]{0,3})?([smhd])", text) if isinstance(text, str) else None
        if found is None or int(found[1]) > MOST_STARTS:
            raise ValueError(f"write up to {MOST_STARTS} for a time, as in '100/m', '5/10s', '1000/h' or '20/d'.")
        return cls(int(found[1]), int(found[2] or 1) * UNITS[found[3]])

    def __str__(self) -> str:
        unit = max((unit for unit, seconds in UNITS.items() if self.seconds % seconds == 0), key=UNITS.__getitem__)
        length = self.seconds // UNITS[unit]
        return f"{self.most}/{'' if length == 1 else length}{unit}"


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
    permission: Permission | None = None  # who may ask for it: queues/enqueue/permissions.py
    max_concurrency: int | None = None  # limits of all versions together: queues/limits
    rate: Rate | None = None

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


def wrong_limits(name: str, max_concurrency: Any, rate: Any) -> str | None:
    """What does not fit of the limits that a handler declares, as a sentence."""
    if max_concurrency is not None and (type(max_concurrency) is not int or not 1 <= max_concurrency < 2**31):
        return f"{name!r} has max_concurrency={max_concurrency!r}: write a whole number from 1."
    parsed = None
    if rate is not None:
        try:
            parsed = Rate.parse(rate)
        except ValueError as wrong:
            return f"{name!r} has rate={rate!r}: {wrong}"
    for (other, version), kind in _kinds.items():
        for what, mine, its in (
            ("max_concurrency", max_concurrency, kind.max_concurrency),
            ("rate", parsed, kind.rate),
        ):
            if other == name and None not in (mine, its) and mine != its:
                return (
                    f"{name!r} has {what}={mine}, its version {version} {its}: limits are of all versions together."
                    " Write the same, or leave it out."
                )
    return None


def declared_limits() -> dict[str, tuple[int | None, Rate | None]]:
    """The limits that the code declares for each kind. A version that declares none has those of the others."""
    found: dict[str, tuple[int | None, Rate | None]] = {}
    for kind in all_kinds():
        most, rate = found.get(kind.name, (None, None))
        found[kind.name] = (most or kind.max_concurrency, rate or kind.rate)
    return found


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
