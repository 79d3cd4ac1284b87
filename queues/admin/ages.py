"""Times as people say them."""

from datetime import datetime

from django.utils import timezone


def lasting(seconds: float) -> str:
    """0.4 s, 12 s, 3 min, 2 h, 5 days; none for 0."""
    if not seconds:
        return "none"
    return exact(seconds)


def exact(seconds: float) -> str:
    """The same, with milliseconds where it is short: 4 ms, 0.4 s, 12 s .."""
    if seconds < 0.1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 10:
        return f"{seconds:.1f} s"
    for length, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def since(moment: datetime | None) -> str:
    """How long ago that was; a dash for never."""
    return "-" if moment is None else exact(max(0.0, (timezone.now() - moment).total_seconds()))
