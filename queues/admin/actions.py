"""What operators can do to the queues and requests that they select in the admin."""

from django.db.models import QuerySet

from queues.admin.bulk_actions import ControlAction, Limit, Paced
from queues.lifecycle import control
from queues.models import Request, UserQueue
from queues.operations.dead_letters import Chosen, not_retried
from queues.states import FINAL, GIVEN_UP, QueueState, Status


def failed_of(queues: QuerySet[UserQueue]) -> QuerySet[Request]:
    """What failed in these queues and nobody has tried again."""
    found = not_retried(Chosen()).filter(queue__in=queues.order_by().values("pk"))
    return found.defer("payload", "result", "error")


AGAIN = "As new requests at the tail, each user's in their order; none that was tried again already."
OF_QUEUES = (
    ControlAction(
        "pause", "Pause the selected queues",
        "Nothing further starts; what runs ends; accepting goes on. Their owners cannot resume them.",
        "paused",
        lambda queue, given: control.pause(queue, given.by),
        applies=lambda queue: not (queue.paused and queue.operator_paused),
    ),
    ControlAction(
        "resume", "Resume the selected queues", "They go on where they stopped.", "resumed",
        lambda queue, _: control.resume(queue, operator=True), applies=lambda queue: queue.paused,
    ),
    ControlAction(
        "purge", "Cancel all that waits in the selected queues", "What runs goes on. This cannot be taken back.",
        "purged", lambda queue, _: control.purge(queue), applies=lambda queue: queue.depth > 0,
    ),
    ControlAction(
        "skip", "Skip the request that blocks the selected queues", "It is given up, as failed; the next one runs.",
        "skipped", lambda queue, _: control.skip_head(queue), heads=True,
        applies=lambda queue: queue.state == QueueState.BLOCKED,
    ),
    ControlAction(
        "republish", "Bring all that waits to RabbitMQ again", "What is there twice is passed over.", "republished",
        lambda queue, _: control.republish(queue), applies=lambda queue: queue.depth > 0,
    ),
    ControlAction(
        "retry_failed", "Try again what failed in the selected queues", AGAIN, "tried again",
        lambda request, _: control.retry_once(request), Paced, targets=failed_of,
        applies=lambda queue: not_retried(Chosen(queue=queue)).exists(),
    ),
    ControlAction(
        "limit", "Set how many requests may wait in the selected queues", "More are refused with 429.", "limited",
        lambda queue, given: control.limit(queue, given.values["waiting_limit"]), Limit, right="change",
    ),
)  # fmt: skip
OF_REQUESTS = (
    ControlAction(
        "cancel", "Cancel the selected requests", "What waits: at once. What runs: its handler is asked to stop.",
        "cancelled, or asked to stop", lambda request, _: control.cancel(request),
        applies=lambda request: request.status_now not in FINAL,
    ),
    ControlAction(
        "retry", "Try the selected requests again", f"{AGAIN} The head of a blocked queue: the same once more.",
        "tried again", lambda request, _: control.retry_once(request), Paced,
        applies=lambda request: request.status_now in (*GIVEN_UP, Status.BLOCKED),
    ),
    ControlAction(
        "skip", "Skip the selected requests, which block their queues", "As failed; the next ones run.", "skipped",
         lambda request, _: control.skip(request), heads=True,
        applies=lambda request: request.status_now == Status.BLOCKED,
    ),
)  # fmt: skip
