"""How long handlers take, and what follows: which are fast, which are over in time, how many requests to claim.

How slow RabbitMQ and PostgreSQL are is none of a handler's business, but it is its thread's.
"""

from django.conf import settings

FAST_SECONDS = 0.005  # a handler is fast if it takes less
LATE = 1.1  # times as late as they may be, outcomes are not late: who sleeps for 20 ms wakes up a little later
LARGEST_CLAIM = 256
NEWEST, NEWEST_OF_ALL = 0.25, 0.05  # how much the last one weighs: of its kind, and of all kinds
LONGEST = 0.1  # seconds of a kind that count: one that took minutes is forgotten as soon
ALL = ""  # the kind that stands for all of them

_paces: dict[str, float] = {}


def note(kind: str, seconds: float) -> None:
    """A handler of this kind took so long."""
    _note(kind, min(seconds, LONGEST), NEWEST)


def note_thread(seconds: float) -> None:
    """A request kept its thread for so long. Others wait for it no longer than outcomes may: no more of it counts, or a
    few slow ones among many would have each queue run by itself.
    """
    _note(ALL, min(seconds, max(FAST_SECONDS, in_time_seconds())), NEWEST_OF_ALL)


def _note(name: str, seconds: float, weight: float) -> None:
    before = _paces.get(name, seconds)
    _paces[name] = before + weight * (seconds - before)


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
