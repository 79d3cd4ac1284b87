"""The one way in which tests wait: for a condition, with a limit."""

import time
from collections.abc import Callable
from typing import Any

OFTEN, SELDOM = 0.005, 0.1  # seconds between two looks: whoever has waited for long looks less often


def until(condition: Callable[[], Any], seconds: float = 15, why: str | Callable[[], object] = "") -> Any:
    """Wait until `condition` holds; what it gave. Fails the test after so many seconds, and says `why`."""
    began = time.monotonic()
    while not (found := condition()):
        waited = time.monotonic() - began
        if waited >= seconds:
            raise AssertionError(f"not within {seconds} s: {why() if callable(why) else why}")
        time.sleep(min(max(OFTEN, waited / 10), SELDOM))
    return found
