"""What the service shows, typed. A field that a newer service adds is left out."""

from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Self

FINAL = frozenset({"succeeded", "failed", "cancelled", "expired"})


@dataclass(frozen=True, slots=True)
class Request:
    """One thing that was asked for. `progress` is {current, total, note}, `error` {type, message, at}."""

    id: str
    kind: str
    version: int
    status: str
    sequence: int | None
    position: int | None
    eta_seconds: float | None
    payload: Any
    attempt: int
    max_attempts: int
    progress: dict[str, Any] | None
    result: Any
    error: dict[str, Any] | None
    retry_of: str | None
    cancel_requested: bool
    created_at: datetime
    not_before: datetime | None
    expires_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None

    @property
    def final(self) -> bool:
        return self.status in FINAL

    @property
    def succeeded(self) -> bool:
        return self.status == "succeeded"

    @classmethod
    def read(cls, shown: dict[str, Any]) -> Self:
        return cls(**_known(cls, shown))


@dataclass(frozen=True, slots=True)
class Queue:
    """How one's queue is doing."""

    state: str
    paused: bool
    depth: int
    limit: int
    oldest_waiting_at: datetime | None
    running: str | None
    finished_per_minute: float
    eta_seconds: float | None
    blocked_by: str | None
    limited_by: dict[str, Any] | None = None

    @classmethod
    def read(cls, shown: dict[str, Any]) -> Self:
        return cls(**_known(cls, shown))


@dataclass(frozen=True, slots=True)
class Submission:
    """What is to be asked for: one of a batch."""

    kind: str
    payload: Any
    version: int | None = None
    not_before: datetime | None = None
    expires_at: datetime | None = None

    def body(self) -> dict[str, Any]:
        told: dict[str, Any] = {"kind": self.kind, "payload": self.payload}
        for name in ("version", "not_before", "expires_at"):
            value = getattr(self, name)
            if isinstance(value, datetime):
                if value.tzinfo is None:
                    raise ValueError(f"{name} has no time zone: write datetime.now(timezone.utc), for example.")
                value = value.isoformat()
            if value is not None:
                told[name] = value
        return told


@dataclass(frozen=True, slots=True)
class Event:
    """One event of `follow`: `request` or `queue`, whichever it tells of. `id` resumes after it."""

    id: str
    request: Request | None = None
    queue: Queue | None = None


def _known(model: type[Any], shown: dict[str, Any]) -> dict[str, Any]:
    names = {field.name for field in fields(model)}
    return {
        name: datetime.fromisoformat(value) if name.endswith(("_at", "_before")) and value is not None else value
        for name, value in shown.items()
        if name in names
    }
