"""How long handlers take, and what follows: which are fast, which are over in time, how many requests to claim.

How slow RabbitMQ and PostgreSQL are is none of a handler's business.
"""

from django.conf import settings

FAST_SECONDS = 0.005  # a handler is fast if it takes less
LATE = 1.1  # times as late as they may be, outcomes are not late: who sleeps for 20 ms wakes up a little later
LARGEST_CLAIM = 256
NEWEST = 0.25  # how much the last one weighs

_paces: dict[str, float] = {}


def note(kind: str, seconds: float) -> None:
    """A handler of this kind took so long."""
    before = _paces.get(kind, seconds)
    _paces[kind] = before + NEWEST * (seconds - before)


def of(kind: str, unknown: float) -> float:
    """Seconds that handlers of this kind took in this process, lately; `unknown` before the first."""
    return _paces.get(kind, unknown)


def in_time_seconds() -> float:
    """How long a handler takes at most that keeps no outcome before it from being recorded in time."""
    return LATE * settings.ENV.record_after_ms / 1000


def claim_of(pace: float) -> int:
    """How many requests to claim at once whose handlers take `pace` seconds each, so that they are recorded in time."""
    return LARGEST_CLAIM if pace <= FAST_SECONDS else 1 + int(in_time_seconds() / pace)
