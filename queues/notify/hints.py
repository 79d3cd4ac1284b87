"""Hints through Redis that save a wait: that there is work, that somebody waits, that something is finished.

They may be lost, doubled or late: whoever hopes for one also looks for itself now and then.
"""

import time

from django.conf import settings

from project.redis import RedisUnavailable, Subscription, hint, own

QUIET_SECONDS = 0.005  # one hint covers everything accepted by this process within so long

_last = 0.0


def channel(name: str) -> str:
    """A pub/sub channel of this installation (Redis shares channels among its database numbers)."""
    database: str = settings.DATABASES["default"]["NAME"]
    return own(f"{settings.ENV.queue_prefix}{database}:{name}")


def work_waits() -> None:
    """Tell the dispatcher that something was accepted. Never raises; at most one hint every few milliseconds."""
    global _last
    now = time.monotonic()
    if now - _last >= QUIET_SECONDS:
        _last = now
        hint(channel("work"))


class Listener:
    """Waits for hints; without Redis it just waits, and looks for Redis again now and then."""

    def __init__(self, *names: str) -> None:
        self._channels = [channel(name) for name in names or ("work",)]
        self._subscription: Subscription | None = None
        self._next_try = 0.0

    @property
    def connected(self) -> bool:
        """Whether hints can arrive."""
        return self._subscription is not None

    def wait(self, seconds: float) -> bool:
        """Wait for a hint for at most so many seconds; whether there was one."""
        return bool(self.hear(seconds))

    def hear(self, seconds: float) -> list[str]:
        """Wait for hints for at most so many seconds; those that came, none when none did."""
        until = time.monotonic() + seconds
        try:
            subscription = self._subscribe()
            if subscription is not None and (heard := subscription.hear(max(0.0, until - time.monotonic()))):
                return heard
        except RedisUnavailable:
            self.close()
        time.sleep(max(0.0, until - time.monotonic()))
        return []

    def _subscribe(self) -> Subscription | None:
        if self._subscription is None and time.monotonic() >= self._next_try:
            self._next_try = time.monotonic() + 1
            self._subscription = Subscription(self._channels)
        return self._subscription

    def close(self) -> None:
        """Let go of the connection."""
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            subscription.close()
