"""The one way in which tests wait: for a condition, with a limit."""

import time
from collections.abc import Callable
from typing import Any


def until(condition: Callable[[], Any], seconds: float = 15, why: str | Callable[[], object] = "") -> Any:
    """Wait until `condition` holds; what it gave. Fails the test after so many seconds, and says `why`."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() >= deadline:
            raise AssertionError(f"not within {seconds} s: {why() if callable(why) else why}")
        time.sleep(0.005)
    return found
