"""How long to wait before the next try, while a server is away: longer with each failure in a row."""

import random
import threading


class Backoff:
    """Waits from `first` seconds on, doubled with each failure up to `longest`, with jitter."""

    def __init__(self, first: float = 0.1, longest: float = 3.0) -> None:
        self.first, self.longest = first, longest
        self.failures = 0

    def wait(self, stop: threading.Event) -> None:
        """Another failure: wait, or until `stop` is set."""
        self.failures += 1
        jitter = random.uniform(0.5, 1)  # noqa: S311  (spreads load, guards nothing)
        stop.wait(min(self.longest, self.first * 2 ** min(self.failures, 10)) * jitter)

    def over(self) -> None:
        """It went well."""
        self.failures = 0
