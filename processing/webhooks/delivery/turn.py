"""One webhook's turn: what is sent to it in a row, and what came of that, as the statements read it."""

import random
import time
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from django.utils import timezone

from processing.webhooks.delivery.sending import Answer, Message
from processing.webhooks.models import DeliveryState

SLOW_SECONDS = 1.0  # a receiver that takes longer has its place among the slow ones
FIRST_DELAY, LONGEST_DELAY = 5.0, 3600.0  # seconds between attempts


@dataclass(eq=False)
class Turn:
    """A webhook that this process holds, the messages to send in order, and what came of them."""

    webhook: UUID
    queue: int
    url: str
    lease: int
    slow: bool
    failures: int
    messages: list[Message] = field(default_factory=list)
    dropped: list[int] = field(default_factory=list)
    answers: list[tuple[int, Answer]] = field(default_factory=list)
    taken: float = field(default_factory=time.monotonic)

    @property
    def last(self) -> Answer | None:
        return self.answers[-1][1] if self.answers else None

    def outcomes(self) -> list[dict[str, Any]]:
        """As RECORD reads them."""
        found: list[dict[str, Any]] = [{"id": id_, "state": DeliveryState.DROPPED, "body": ""} for id_ in self.dropped]
        for id_, answer in self.answers:
            attempt = {
                "at": timezone.now().isoformat(timespec="milliseconds").replace("+00:00", "Z"),
                "status": answer.status,
                "duration_ms": round(answer.seconds * 1000, 1),
                "error": answer.error or None,
            }
            state = DeliveryState.DELIVERED if answer.delivered else DeliveryState.PENDING
            found.append({"id": id_, "state": state, "body": answer.body, "attempt": attempt})
        return found

    def released(self) -> dict[str, Any]:
        """As RELEASE reads it."""
        last = self.last
        failed = last is not None and not last.delivered
        succeeded = any(answer.delivered for _, answer in self.answers)
        return {
            "id": self.webhook,
            "url": self.url,
            "failed": failed,
            "succeeded": succeeded,
            "slow": self.slow if last is None else failed or last.seconds > SLOW_SECONDS,
            "delay": backoff((0 if succeeded else self.failures) + 1, last.retry_after if last else 0.0),
            "error": last.error if last else "",
            "gone": failed and last is not None and last.status == 410,
        }


def backoff(failures: int, retry_after: float = 0.0) -> float:
    """Seconds until the next attempt after so many failures: doubled each time, an hour at most, a fifth by chance."""
    doubled = min(LONGEST_DELAY, FIRST_DELAY * 2.0 ** min(failures - 1, 20))
    return max(doubled * random.uniform(0.8, 1.2), min(retry_after, LONGEST_DELAY))  # noqa: S311  (no secret)
