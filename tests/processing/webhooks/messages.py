"""Messages to send, and what became of them."""

from collections.abc import Callable

from accounts.models import User
from processing.webhooks.models import Delivery, Webhook
from queues.lifecycle import control
from tests.processing.crew import queue_of, submit

Hook = Callable[..., Webhook]
Deliver = Callable[..., None]


def cancelled(user: User, count: int) -> None:
    """So many requests that are final, in order."""
    submit(user, *["x"] * count)
    control.purge(queue_of(user).id)


def pending(webhook: Webhook) -> bool:
    return webhook.deliveries.filter(state="pending").exists()


def attempts() -> list[dict[str, object]]:
    return list(Delivery.objects.earliest("id").attempts)
