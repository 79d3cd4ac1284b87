"""From Python: `import queues`, then `queues.submit(user, "report.build", payload)`. docs/python.md is the guide.

Names are looked up when they are first used: they need models, and this package is imported before there are any.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from project.rest.problems import Forbidden, Invalid
    from queues.exceptions import KeyInUse, KeyReused, NotPossible, QueueFull, SessionOver, TooManyBytes
    from queues.from_python import (
        NewRequest,
        NoSuchRequest,
        QueueBusy,
        RequestStatus,
        Submitted,
        cancel,
        status,
        submit,
        submit_many,
    )

__all__ = [
    "Forbidden",
    "Invalid",
    "KeyInUse",
    "KeyReused",
    "NewRequest",
    "NoSuchRequest",
    "NotPossible",
    "QueueBusy",
    "QueueFull",
    "RequestStatus",
    "SessionOver",
    "Submitted",
    "TooManyBytes",
    "cancel",
    "status",
    "submit",
    "submit_many",
]

_PLACES = {
    "Forbidden": "project.rest.problems",
    "Invalid": "project.rest.problems",
    "KeyInUse": "queues.exceptions",
    "KeyReused": "queues.exceptions",
    "NotPossible": "queues.exceptions",
    "QueueFull": "queues.exceptions",
    "SessionOver": "queues.exceptions",
    "TooManyBytes": "queues.exceptions",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_PLACES.get(name, "queues.from_python")), name)
