"""Which kinds and versions something waits for: what a release that drops one would leave without a handler."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from queues import kinds
from queues.exceptions import UnknownKind
from queues.sql.figures import KINDS_IN_USE


@dataclass(frozen=True, slots=True)
class KindUse:
    """So many of `what` (requests, schedules) ask for this kind. `version` None: for the newest."""

    what: str
    kind: str
    version: int | None
    count: int
    users: int
    oldest: datetime | None

    @property
    def has_handler(self) -> bool:
        """Whether this code can run them."""
        try:
            kinds.find(self.kind, self.version)
        except UnknownKind:
            return False
        return True


def requests() -> list[KindUse]:
    """Requests without a final status."""
    return [
        KindUse("requests", row.kind, row.version, row.unfinished, row.users, row.oldest) for row in KINDS_IN_USE.rows()
    ]


def waiting() -> dict[tuple[str, int], int]:
    """How many requests of each kind and version wait, scheduled ones included; the one that runs does not."""
    return {(row.kind, row.version): row.waiting for row in KINDS_IN_USE.rows()}


sources: list[Callable[[], list[KindUse]]] = [requests]  # an app that keeps kinds elsewhere adds its own


def all_uses() -> list[KindUse]:
    """All that asks for kinds, whoever keeps it."""
    return [use for source in sources for use in source()]
