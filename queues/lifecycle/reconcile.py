"""Leases in a process's name that it does not know: an answer was lost, or came too late. Others may have them."""

from collections.abc import Callable, Collection

import orjson

from queues.sql.protocol import GIVE_BACK, HELD

YOUNG_SECONDS = 2.0  # a lease is given back once it is as old; longer than lease.ANSWER_SECONDS


def reconcile(worker_id: int, known: Callable[[], Collection[tuple[int, int]]]) -> list[int]:
    """Give back the leases in the name of `worker_id` that it does not know, by queue and fence. Who wants a token.

    One whose answer may still be on its way is left alone, or its handler would run beside the next holder's. So
    `known` is asked after PostgreSQL: what is old by then and unknown has been refused, or will be.
    """
    held = [(row.id, row.fence) for row in HELD.rows(worker_id=worker_id) if row.age >= YOUNG_SECONDS]
    if not held:
        return []
    mine = known()
    unknown = [{"id": id_, "fence": fence} for id_, fence in held if (id_, fence) not in mine]
    if not unknown:
        return []
    rows = GIVE_BACK.rows(unknown=orjson.dumps(unknown).decode(), worker_id=worker_id)
    return [row.id for row in rows if row.wants_token]
