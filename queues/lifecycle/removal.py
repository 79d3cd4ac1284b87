"""Deletes requests, and takes their bytes off their queues."""

from collections.abc import Sequence
from uuid import UUID

from queues.representation import response_cache
from queues.sql.control import DELETE_REQUESTS


def remove(ids: Sequence[UUID]) -> int:
    """Delete these requests with their attempts, and what Redis keeps of them; how many.

    Those of a queue that somebody else has locked stay.
    """
    response_cache.forget(ids)
    return len(DELETE_REQUESTS.rows(ids=ids))
