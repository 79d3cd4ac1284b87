"""What is known of a user's webhooks, for an export of all that is known of the user. No secret."""

from collections.abc import Iterator
from typing import Any

from accounts.models import User
from processing.webhooks.models import Delivery, Webhook
from processing.webhooks.showing import delivery_as_json, webhook_as_json
from queues.operations.selectors import by_key

PAGE = 200


def records(user: User) -> Iterator[dict[str, Any]]:
    """Each webhook, and after it its deliveries."""
    for webhook in Webhook.objects.filter(queue__user=user).order_by("id"):
        yield {"record": "webhook", **webhook_as_json(webhook)}
        for delivery in by_key(Delivery.objects.filter(webhook=webhook), "id", PAGE):
            yield {"record": "webhook_delivery", "webhook": webhook.id, **delivery_as_json(delivery)}
