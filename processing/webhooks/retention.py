"""What is not kept for ever: deliveries that ended long ago, and deleted webhooks with all that was theirs."""

from uuid import UUID

from django.conf import settings

from processing.webhooks import owning
from processing.webhooks.statements import ABANDONED, DELETED, OF_DELETED, OF_USER, OLD


def prune(count: int) -> bool:
    """Remove up to `count` rows of each; whether there may be more. Any number may do so."""
    seconds = settings.ENV.webhook_retention_days * 86400
    removed = [
        len(OLD.rows(seconds=seconds, count=count)),
        len(ABANDONED.rows(seconds=seconds, count=count)),
        len(OF_DELETED.rows(count=count)),
        len(DELETED.rows(count=count)),
    ]
    return count in removed


def remove_of(user_id: UUID, count: int) -> int:
    """A step of an erasure: end the user's webhooks, and remove up to `count` of their messages; how many."""
    owning.remove_all(user_id)
    return len(OF_USER.rows(user=user_id, count=count))
