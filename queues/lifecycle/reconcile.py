"""Leases in a process's name that it does not know: an answer was lost, or came too late. Others may have them."""

from collections.abc import Callable, Collection

import orjson

from queues.sql.protocol import GIVE_BACK, HELD

YOUNG_SECONDS = 2.0  # a lease is given back once it is as old; longer than lease.ANSWER_SECONDS


def reconcile(holder: int, known: Callable[[], Collection[tuple[int, int]]]) -> list[int]:
    """Give back the leases in the name of `holder` that it does not know, by queue and fence. Who wants a token.

    One whose answer may still be on its way is left alone, or its handler would run beside the next holder's. So
    `known` is asked after PostgreSQL: what is old by then and unknown has been refused, or will be.
    """
    held = [(row.id, row.fence) for row in HELD.rows(holder=holder) if row.age >= YOUNG_SECONDS]
    if not held:
        return []
    mine = known()
    unknown = [{"id": id_, "fence": fence} for id_, fence in held if (id_, fence) not in mine]
    if not unknown:
        return []
    rows = GIVE_BACK.rows(unknown=orjson.dumps(unknown).decode(), holder=holder)
    return [row.id for row in rows if row.wants_token]
