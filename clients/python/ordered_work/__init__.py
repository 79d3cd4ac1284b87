"""Client of Ordered work. `Client` and `AsyncClient` have the same verbs."""

from ordered_work._protocol import Patience
from ordered_work.async_client import AsyncClient
from ordered_work.client import Client
from ordered_work.errors import (
    ApiError,
    Conflict,
    FieldError,
    Forbidden,
    Invalid,
    KeyReused,
    NotAuthenticated,
    NotFound,
    OrderedWorkError,
    StillRunning,
    TooMany,
    Unavailable,
    Unreachable,
)
from ordered_work.models import Event, Queue, Request, Submission

__all__ = [
    "ApiError", "AsyncClient", "Client", "Conflict", "Event", "FieldError", "Forbidden", "Invalid", "KeyReused",
    "NotAuthenticated", "NotFound", "OrderedWorkError", "Patience", "Queue", "Request", "StillRunning", "Submission",
    "TooMany", "Unavailable", "Unreachable",
]  # fmt: skip
