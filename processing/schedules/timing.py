"""When a schedule is due: by a cron expression in a time zone, or every so many seconds. Moments are in UTC."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from itertools import takewhile
from zoneinfo import ZoneInfo, available_timezones

from cronsim import CronSim, CronSimError

LONGEST_CRON = 100
# How far back the newest due times are looked for, one after another: a few thousand steps at the most.
WINDOWS = [timedelta(hours=2), timedelta(days=2), timedelta(days=90), timedelta(days=3660)]


class WrongTiming(ValueError):
    """The expression, or the time zone, is none: `field` is which, and the message says what to write."""

    def __init__(self, field: str, sentence: str) -> None:
        super().__init__(sentence)
        self.field = field


@lru_cache(1)
def time_zones() -> frozenset[str]:
    """The names of all time zones that this machine knows."""
    return frozenset(available_timezones() | {"UTC"})


def zone(name: str) -> tzinfo:
    """The time zone of that name. Raises WrongTiming."""
    if name == "UTC":
        return UTC
    if name not in time_zones():
        raise WrongTiming("time_zone", "This time zone is not known. Write one as Europe/Berlin, or UTC.")
    return ZoneInfo(name)


@dataclass(frozen=True, slots=True)
class Timing:
    """Either `cron` with a `time_zone`, or `every_seconds`."""

    cron: str = ""
    time_zone: str = "UTC"
    every_seconds: int | None = None

    def check(self, now: datetime) -> None:
        """Raise WrongTiming unless it is due some day."""
        if self.every_seconds is not None:
            return
        zone(self.time_zone)
        if len(self.cron.split()) != 5:
            raise WrongTiming("cron", "Write five fields: minute, hour, day of month, month, day of week.")
        try:
            CronSim(self.cron, now)
        except CronSimError as wrong:
            raise WrongTiming("cron", f"{wrong}: write five fields, such as 30 6 * * MON-FRI.") from None
        if self.first(now) is None:
            raise WrongTiming("cron", "It is never due.")

    def first(self, now: datetime) -> datetime | None:
        """When it is due first, if it begins now."""
        if self.every_seconds is not None:
            return now + timedelta(seconds=self.every_seconds)
        return next(self._cron_after(now), None)

    def after(self, due: datetime) -> Iterator[datetime]:
        """The due times after this one, in order."""
        if self.every_seconds is None:
            yield from self._cron_after(due)
            return
        while True:
            due += timedelta(seconds=self.every_seconds)
            yield due

    def between(self, first: datetime, now: datetime, most: int) -> list[datetime]:
        """The due times from `first`, which is one, until now: the newest `most`, the oldest first."""
        if self.every_seconds is not None:
            each = timedelta(seconds=self.every_seconds)
            count = (now - first) // each + 1
            return [first + number * each for number in range(max(0, count - most), count)]
        found: deque[datetime] = deque(maxlen=most)
        for window in WINDOWS:
            begin = max(first, now - window)
            found.clear()
            found.extend(takewhile(lambda due: due <= now, self._cron_after(begin - timedelta(seconds=1))))
            if len(found) == most or begin == first:
                break
        return list(found)

    def _cron_after(self, moment: datetime) -> Iterator[datetime]:
        """As Debian's cron: what was due in an hour that is left out is due right after it, once; a time of day that
        comes twice is due the first time; what is due every hour or oftener follows the clock of the world.
        """
        last = moment
        for local in CronSim(self.cron, moment.astimezone(zone(self.time_zone))):
            due = local.astimezone(UTC)
            if due > last:  # the hour that comes twice could lead back
                yield due
                last = due
