"""A webhook and a delivery as their owner sees them. No secret."""

from typing import Any
from uuid import UUID

from processing.webhooks.models import Delivery, Webhook


def message_id(uid: UUID) -> str:
    """The header webhook-id: the same in each attempt, so that a receiver knows what it has."""
    return f"msg_{uid.hex}"


def webhook_as_json(webhook: Webhook) -> dict[str, Any]:
    failing = webhook.failing_since is not None
    return {
        "id": webhook.id,
        "url": webhook.url,
        "events": webhook.events,
        "enabled": webhook.enabled,
        "disabled_reason": webhook.disabled_reason or None,
        "created_at": webhook.created_at,
        "failing_since": webhook.failing_since,
        "last_error": webhook.last_error or None,
        "last_delivered_at": webhook.last_delivered_at,
        "next_attempt_at": webhook.due_at if failing else None,
    }


def delivery_as_json(delivery: Delivery) -> dict[str, Any]:
    return {
        "id": delivery.uid,
        "message_id": message_id(delivery.uid),
        "event": delivery.event,
        "request": delivery.request_id,
        "state": delivery.state,
        "created_at": delivery.created_at,
        "delivered_at": delivery.delivered_at,
        "attempts": delivery.attempts,
        "response_body": delivery.response_body,
    }
