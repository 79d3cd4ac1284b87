"""What TASKS says of our back end: its options are those of a kind. What does not fit stops the start."""

from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

BACKEND = "processing.tasks.backend.OrderedBackend"
OF_KIND = ("max_attempts", "time_limit", "on_failure", "backoff", "backoff_cap")
OPTIONS = (*OF_KIND, "user")
PLAIN, ASYNC = 1, 2  # the versions of the kind: `def` tasks, and those that hold no thread


def kind_of(alias: str) -> str:
    """The kind that the tasks of a back end are requests of."""
    return f"task.{alias}"


def ours() -> dict[str, dict[str, Any]]:
    """The options of each back end that is ours, by alias. Raises ImproperlyConfigured."""
    found = {}
    for alias, about in getattr(settings, "TASKS", {}).items():
        if about.get("BACKEND") == BACKEND:
            options = about.get("OPTIONS", {})
            if unknown := sorted(set(options) - set(OPTIONS)):
                told = f"there is no option {unknown[0]!r}. Write {', '.join(OPTIONS)}."
                raise ImproperlyConfigured(f"TASKS[{alias!r}]: {told}")
            if set(about.get("QUEUES", ["default"])) - {"default"}:
                told = "each user has one queue, named default. Leave QUEUES out; using(user=..) says whose."
                raise ImproperlyConfigured(f"TASKS[{alias!r}]: {told}")
            found[alias] = options
    return found
