"""The board's charts: what happened in each minute of an hour, drawn as bars in a field with axes."""

from dataclasses import dataclass

WIDE, HIGH, LEFT, BELOW = 600, 150, 44, 22  # of the picture; left and below are the axes' labels
TICKS = (60, 45, 30, 15, 0)  # minutes ago


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar of a chart, and what it says under the mouse."""

    x: float
    y: float
    width: float
    height: float
    title: str


@dataclass(frozen=True, slots=True)
class Tick:
    """A label of an axis, and where it stands."""

    at: float
    label: str


@dataclass(frozen=True, slots=True)
class Chart:
    """One hour, a bar for each minute. All charts have one size and the same axis of time."""

    name: str
    bars: list[Bar]
    high: list[Tick]
    time: list[Tick]
    most: int
    last_minute: int
    left: int = LEFT
    right: int = WIDE
    floor: int = HIGH - BELOW
    labels: int = HIGH - 6


def chart(minutes: list[int], what: str, top: int) -> Chart:
    """The counts of the last minutes, this one last. `top` is the axis' upper end: charts to compare share it."""
    floor, step = HIGH - BELOW, (WIDE - LEFT) / len(minutes)
    bars = []
    for number, count in enumerate(minutes):
        high = round((floor - 8) * count / top, 1)
        ago = len(minutes) - 1 - number
        title = f"{count} {what}, {f'{ago} min ago' if ago else 'this minute so far'}"
        bars.append(Bar(round(LEFT + number * step, 1), round(floor - high, 1), round(step - 1.5, 1), high, title))
    high_ticks = [Tick(round(floor - (floor - 8) * part, 1), short(top * part)) for part in (0, 0.5, 1)]
    time_ticks = [Tick(round(WIDE - (WIDE - LEFT) * ago / 60, 1), f"-{ago} min" if ago else "now") for ago in TICKS]
    return Chart(what, bars, high_ticks, time_ticks, max(minutes), minutes[-2])


def axis(*counts: int) -> int:
    """The round number at or above the largest: 1, 2, 5, 10, 20, 50 .."""
    most, size = max(1, *counts), 1
    while True:
        for step in (1, 2, 5):
            if step * size >= most:
                return step * size
        size *= 10


def short(count: float) -> str:
    """A number as an axis says it: 5, 500, 2k, 1.5M."""
    for size, letter in ((1_000_000, "M"), (1_000, "k")):
        if count >= size:
            return f"{count / size:g}{letter}"
    return f"{count:g}"
