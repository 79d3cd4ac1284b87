"""How long handlers take, and what follows: which are fast, which are over in time, how many requests to claim.

How slow RabbitMQ and PostgreSQL are is none of a handler's business, but where it is one with its record.
"""

from django.conf import settings

FAST_SECONDS = 0.005  # a handler is fast if it takes less
LATE = 1.1  # times as late as they may be, outcomes are not late: who sleeps for 20 ms wakes up a little later
LARGEST_CLAIM = 256
NEWEST, NEWEST_OF_ALL = 0.25, 0.05  # how much the last one weighs: of its kind, and of all kinds

_paces: dict[str, float] = {}
ALL = ""  # the kind that stands for all of them


def note(kind: str, seconds: float, held: float) -> None:
    """A handler of this kind took so long; `held` is what it took its thread, which an atomic one commits in."""
    for one, took, weight in ((kind, seconds, NEWEST), (ALL, held, NEWEST_OF_ALL)):
        before = _paces.get(one, took)
        _paces[one] = before + weight * (took - before)


def of(kind: str, unknown: float) -> float:
    """Seconds that handlers of this kind took in this process, lately; `unknown` before the first."""
    return _paces.get(kind, unknown)


def in_time_seconds() -> float:
    """How long a handler takes at most that keeps no outcome before it from being recorded in time."""
    return LATE * settings.ENV.record_after_ms / 1000


def claim_of(pace: float) -> int:
    """How many requests to claim at once whose handlers take `pace` seconds each, so that they are recorded in time."""
    return LARGEST_CLAIM if pace <= FAST_SECONDS else 1 + int(in_time_seconds() / pace)


def queues_in_time(most: int) -> int:
    """Of how many queues, `most` at most, a thread runs a request each before the first one's outcome is late."""
    pace = _paces.get(ALL, 0.0)
    return most if pace * most <= in_time_seconds() else max(1, int(in_time_seconds() / pace))
