"""Times in the admin's templates as people say them."""

from datetime import datetime

from django import template

from queues.admin.ages import exact, since

register = template.Library()


@register.filter
def seconds(value: float | None) -> str:
    """0.0042 -> 4 ms, 44.1 -> 44 s, 7200 -> 2 h; a dash for None."""
    return "-" if value is None else exact(max(0.0, value))


@register.filter
def age(moment: datetime | None) -> str:
    """How long ago that was; a dash for never."""
    return since(moment)
