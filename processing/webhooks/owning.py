"""What an owner does with webhooks: each verb is one guarded statement, or a few in one transaction."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import structlog
from django.conf import settings
from django.db import transaction
from django.db.models import F, Q, QuerySet, Value
from django.db.models.functions import Now
from django.utils import timezone

from processing.webhooks.delivery.signing import new_secret
from processing.webhooks.models import Delivery, DeliveryState, Event, Webhook
from processing.webhooks.statements import LOCK_OWNER
from queues.enqueue.accept import open_queue

log = structlog.get_logger()

LOCK_CLASS = 0x6F776877  # "owhw": who adds a webhook to a queue
OLD_SECRET_FOR = timedelta(hours=24)


class TooMany(Exception):
    """The user has as many webhooks as one may have."""


def webhooks_of(user_id: UUID) -> QuerySet[Webhook]:
    return Webhook.objects.filter(queue__user=user_id, deleted_at=None).order_by("id")


def create(user_id: UUID, url: str, events: Iterable[str], enabled: bool) -> Webhook:
    """A new webhook with its secret. Raises TooMany, exact under concurrency."""
    queue = open_queue(user_id)
    with transaction.atomic():
        LOCK_OWNER.row(lock_class=LOCK_CLASS, queue=str(queue))
        if webhooks_of(user_id).count() >= settings.ENV.webhooks_per_user:
            raise TooMany
        fields = {"url": url, "events": list(events), "enabled": enabled}
        made = Webhook.objects.create(queue_id=queue, secret=new_secret(), **fields)
        told = {"webhook": str(made.id), "user": str(user_id), "host": urlsplit(url).hostname}
        transaction.on_commit(lambda: log.info("webhook_created", **told))
        return made


def change(webhook: Webhook, **fields: Any) -> bool:
    """Another address or other events; on or off. Switched on, or moved, it begins anew with what is pending.

    False: it is gone, or nothing was asked for.
    """
    if not fields:
        return False
    mine = Webhook.objects.filter(id=webhook.id, deleted_at=None)
    told = {
        "webhook": str(webhook.id),
        "fields": sorted(fields),
        "host": urlsplit(fields.get("url", webhook.url)).hostname,
    }
    transaction.on_commit(lambda: log.info("webhook_changed", **told))
    if fields.get("enabled") is False:
        fields |= {"due_at": None}
    elif fields.get("enabled") or fields.get("url", webhook.url) != webhook.url:
        begins = {"failures": 0, "failing_since": None, "last_error": "", "disabled_reason": "", "slow": False}
        on = mine if "enabled" in fields else mine.filter(enabled=True)
        with transaction.atomic():
            on.filter(Q(enabled=False) | ~Q(url=fields.get("url", webhook.url))).update(**begins, due_at=Now())
            return bool(mine.update(**fields))
    return bool(mine.update(**fields))


def remove(webhook: Webhook) -> None:
    """It hears nothing more from now on; its messages go in parts, and it with the last of them."""
    _end(Webhook.objects.filter(id=webhook.id))


def remove_all(user_id: UUID) -> None:
    """The same for all of a user's."""
    _end(webhooks_of(user_id))


def _end(webhooks: QuerySet[Webhook]) -> None:
    webhooks.update(enabled=False, due_at=None, deleted_at=Now())


def rotate(webhook: Webhook) -> tuple[str, datetime]:
    """The new secret, and until when the one before signs, too."""
    secret, until = new_secret(), timezone.now() + OLD_SECRET_FOR
    mine = Webhook.objects.filter(id=webhook.id)
    mine.update(old_secret=F("secret"), old_secret_until=until, secret=Value(secret))
    return secret, until


def test(webhook: Webhook) -> Delivery:
    """A message that says only that it is a test; it waits for its turn like any other."""
    return Delivery.objects.create(webhook=webhook, event=Event.TEST)


def resend(webhook: Webhook, uid: UUID) -> bool:
    """Have a message that ended sent once more, under the same id. False: there is none, or it is pending."""
    ended = Delivery.objects.filter(webhook=webhook, uid=uid).exclude(state=DeliveryState.PENDING)
    return bool(ended.update(state=DeliveryState.PENDING, announced=False, delivered_at=None))
