"""Kinds whose schema is slow: on the event loop, where everybody would wait, their payloads are not checked."""

import time

import structlog

from queues.kinds import Kind

SLOW_SECONDS = 0.05  # for one payload
FORGET_SECONDS = 60.0

log = structlog.get_logger()


class SlowKinds:
    """Those found slow within the last minute."""

    def __init__(self) -> None:
        self._until: dict[tuple[str, int], float] = {}  # by the monotonic clock, like the next one
        self._waited: dict[tuple[str, int], float] = {}

    def __contains__(self, kind: Kind) -> bool:
        return self._until.get((kind.name, kind.version), 0.0) > time.monotonic()

    def took_long(self, kind: Kind, computed: float) -> None:
        """A payload's check took more than SLOW_SECONDS, of which the schema computed for so many seconds.

        If it computed less, it waited for something, or this process stood still. That happens to any kind on a busy
        machine, so it must happen twice within a minute.
        """
        now, key = time.monotonic(), (kind.name, kind.version)
        waited_before = self._waited.get(key, -FORGET_SECONDS) > now - FORGET_SECONDS
        self._waited[key] = now
        if computed > SLOW_SECONDS or waited_before:
            self._until[key] = now + FORGET_SECONDS
            log.warning("slow_schema", kind=kind.name, version=kind.version, computed_seconds=round(computed, 3))
