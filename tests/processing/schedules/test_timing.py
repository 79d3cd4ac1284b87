"""When schedules are due: in their time zone, across changes of the clock, and how many were missed."""

from datetime import UTC, datetime, timedelta
from itertools import islice

import pytest

from processing.schedules.timing import Timing, WrongTiming

BERLIN, NOON = "Europe/Berlin", datetime(2026, 6, 1, 12, tzinfo=UTC)


def dues(timing: Timing, after: datetime, count: int) -> list[str]:
    return [f"{due:%m-%d %H:%M}" for due in islice(timing.after(after), count)]


def test_a_time_of_day_follows_the_clock_of_its_zone() -> None:
    """Berlin: the 29th of March 2026 has no 02:00 to 03:00, the 25th of October has it twice. Shown in UTC."""
    daily = Timing("30 6 * * *", BERLIN)
    assert dues(daily, datetime(2026, 3, 28, tzinfo=UTC), 3) == ["03-28 05:30", "03-29 04:30", "03-30 04:30"]
    assert dues(daily, datetime(2026, 10, 24, tzinfo=UTC), 3) == ["10-24 04:30", "10-25 05:30", "10-26 05:30"]


def test_what_is_due_in_the_hour_that_is_left_out_is_due_right_after_it_once() -> None:
    nightly = Timing("0,30 2 * * *", BERLIN)
    assert dues(nightly, datetime(2026, 3, 28, 2, tzinfo=UTC), 3) == ["03-29 01:00", "03-30 00:00", "03-30 00:30"]


def test_what_is_due_in_the_hour_that_comes_twice_is_due_once() -> None:
    nightly = Timing("30 2 * * *", BERLIN)
    expected = ["10-24 00:30", "10-25 00:30", "10-26 01:30"]
    assert dues(nightly, datetime(2026, 10, 24, tzinfo=UTC), 3) == expected
    for minute in range(90):  # from wherever in that night it goes on, never back and never twice
        begin = datetime(2026, 10, 25, 0, 30, tzinfo=UTC) + timedelta(minutes=minute)
        assert dues(nightly, begin, 1) == ["10-26 01:30"]


def test_what_is_due_every_hour_is_due_in_each_of_the_25() -> None:
    hourly = Timing("0 * * * *", BERLIN)
    begin = datetime(2026, 10, 24, 22, tzinfo=UTC)
    found = list(islice(hourly.after(begin - timedelta(seconds=1)), 25))
    assert found == [begin + timedelta(hours=hours) for hours in range(25)]


@pytest.mark.parametrize("cron", ["* * * * *", "*/7 * * * *", "15 3 * * SUN", "0 0 1 1 *", "30 2 * * *"])
def test_the_newest_missed_are_those_that_going_through_all_finds(cron: str) -> None:
    timing = Timing(cron, BERLIN)
    for days in (0.1, 3, 40, 500):
        first = next(timing.after(NOON - timedelta(days=days)))
        if days > 100 and cron in ("* * * * *", "*/7 * * * *"):
            continue  # to go through all of them takes long
        every = [first]
        for due in timing.after(first):
            if due > NOON:
                break
            every.append(due)
        if first <= NOON:
            for most in (1, 5, 100):
                assert timing.between(first, NOON, most) == every[-most:]


def test_a_year_of_minutes_is_looked_through_in_no_time() -> None:
    first = NOON - timedelta(days=366)
    found = Timing("* * * * *").between(first, NOON, 100)
    assert (len(found), found[-1]) == (100, NOON)


def test_every_so_many_seconds() -> None:
    timing = Timing(every_seconds=90)
    assert timing.first(NOON) == NOON + timedelta(seconds=90)
    assert dues(timing, NOON, 2) == ["06-01 12:01", "06-01 12:03"]
    assert timing.between(NOON, NOON + timedelta(seconds=89), 5) == [NOON]
    assert timing.between(NOON, NOON + timedelta(days=3650), 2)[-1] == NOON + timedelta(days=3650)


@pytest.mark.parametrize(
    ("timing", "field"),
    [
        (Timing("* * * *"), "cron"),
        (Timing("* * * * * *"), "cron"),
        (Timing("60 * * * *"), "cron"),
        (Timing("* * 30 2 *"), "cron"),
        (Timing("x * * * *"), "cron"),
        (Timing("* * * * *", "Europe/Atlantis"), "time_zone"),
        (Timing("* * * * *", "../../etc/passwd"), "time_zone"),
        (Timing("* * * * *", "UTC\0"), "time_zone"),
    ],
)
def test_what_is_no_timing_is_refused_by_its_field(timing: Timing, field: str) -> None:
    with pytest.raises(WrongTiming) as wrong:
        timing.check(NOON)
    assert wrong.value.field == field
