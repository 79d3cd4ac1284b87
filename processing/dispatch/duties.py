"""What apps have the leading dispatcher do beside publishing, each in a thread of its own that cannot stall it."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Duty:
    """A job that is begun every `seconds`, unless it is still under way. It ends by itself, soon.

    Each shard's leader does it, for a moment two leaders of one shard may: the job sees to it that this harms nothing.
    """

    name: str
    seconds: float
    job: Callable[[], None]


registered: dict[str, Duty] = {}


def register(duty: Duty) -> None:
    """Have dispatchers do it from now on. To be called in an app's `ready`."""
    registered[duty.name] = duty
