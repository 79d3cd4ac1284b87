"""The doorway between Dramatiq and the drain."""

import dramatiq

from processing.broker.tokens import ACTOR, TOKEN_QUEUE
from processing.worker.drain import drain_queues

FIRST_OF_NOBODY = 2**63  # what PostgreSQL would refuse, in a statement that asks for others' queues, too


@dramatiq.actor(actor_name=ACTOR, queue_name=TOKEN_QUEUE)
def drain(*queue_ids: int) -> None:
    """Run one turn of each of these users' queues."""
    drain_queues(id_ for id_ in queue_ids if type(id_) is int and 0 < id_ < FIRST_OF_NOBODY)
