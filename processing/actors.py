"""The doorway between Dramatiq and the drain."""

import dramatiq

from processing.broker.tokens import ACTOR, TOKEN_QUEUE
from processing.worker.drain import drain_queues


@dramatiq.actor(actor_name=ACTOR, queue_name=TOKEN_QUEUE)
def drain(*queue_ids: int) -> None:
    """Run one turn of each of these users' queues."""
    drain_queues(queue_ids)
