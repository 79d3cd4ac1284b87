"""Webhooks and their messages, for operators: switched off and on, sent once more. A secret is never shown."""

from typing import Any

from django.contrib import admin
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html

from accounts.admin import FoundByUser
from processing.webhooks import owning
from processing.webhooks.models import Delivery, DeliveryState, Webhook
from project.admin.base import ReadOnlyAdmin
from project.admin.confirming import confirmed

MOST = 200  # in one request, each with its line in the log
BY_OPERATOR = "An operator switched it off."


def _webhook(webhook: Webhook) -> str:
    return f"{webhook.url} of {webhook.queue.user}"


def _delivery(delivery: Delivery) -> str:
    return f"{delivery.event} of {delivery.created_at:%Y-%m-%d %H:%M:%S} UTC to {_webhook(delivery.webhook)}"


@admin.register(Webhook)
class WebhookAdmin(FoundByUser, ReadOnlyAdmin):
    user_of = "queue__user"
    list_display = ("url", "owner", "state", "last_error", "failing_since", "failures", "last_delivered_at")
    list_select_related = ("queue__user",)
    list_filter = ("enabled", ("failing_since", admin.EmptyFieldListFilter))
    search_fields = ("queue__user__username",)
    fields = (
        "id", "owner", "url", "events", "enabled", "disabled_reason", "created_at", "deleted_at", "due_at",
        "leased_until", "failures", "failing_since", "last_error", "last_delivered_at", "deliveries",
    )  # fmt: skip
    readonly_fields = fields
    actions = ("switch_off", "switch_on")

    @admin.display(description="user")
    def owner(self, webhook: Webhook) -> str:
        return webhook.queue.user.username

    @admin.display(ordering="enabled")
    def state(self, webhook: Webhook) -> str:
        return "on" if webhook.enabled else "off"

    @admin.display
    def deliveries(self, webhook: Webhook) -> str:
        """Where they are listed, and sent again."""
        address = reverse("admin:webhooks_delivery_changelist", query={"webhook__exact": webhook.pk})
        return format_html('<a href="{}">All to this webhook</a>', address)

    def has_operate_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("webhooks.operate_webhook")

    @confirmed(
        "Switch the selected webhooks off",
        "After what is under way nothing is sent to them, and nothing new is kept for them, until you or their users"
        " switch them on. What is pending stays. Their users read that an operator did it, not why.",
        "operate",
        only=Q(enabled=True, deleted_at=None),
        most=MOST,
        named=_webhook,
    )
    def switch_off(self, request: HttpRequest, chosen: QuerySet[Any], reason: str) -> None:
        self._each(request, chosen, "switched off", reason, enabled=False, disabled_reason=BY_OPERATOR)

    @confirmed(
        "Switch the selected webhooks on",
        "What is pending is sent, at once, and what their users' requests become from now on. What happened while they"
        " were off is not.",
        "operate",
        only=Q(enabled=False, deleted_at=None),
        most=MOST,
        named=_webhook,
    )
    def switch_on(self, request: HttpRequest, chosen: QuerySet[Any], reason: str) -> None:
        self._each(request, chosen, "switched on", reason, enabled=True)

    def _each(self, request: HttpRequest, chosen: QuerySet[Any], done: str, reason: str, **fields: Any) -> None:
        count = 0
        for webhook in chosen:
            if owning.change(webhook, **fields):
                count += 1
                self.log_change(request, webhook, f"{done}: {reason}")
        self.message_user(request, f"{count} {done}.")


@admin.register(Delivery)
class DeliveryAdmin(FoundByUser, ReadOnlyAdmin):
    user_of = "webhook__queue__user"
    list_display = ("uid", "owner", "event", "request_id", "state", "created_at", "tried", "last_error")
    list_select_related = ("webhook__queue__user",)
    list_filter = ("state", "event")
    search_fields = ("webhook__queue__user__username",)
    actions = ("resend",)
    fields = (
        "uid", "owner", "url", "event", "request_id", "state", "created_at", "delivered_at", "attempts_shown",
        "response_body_shown",
    )  # fmt: skip
    readonly_fields = fields

    @admin.display(description="user")
    def owner(self, delivery: Delivery) -> str:
        return delivery.webhook.queue.user.username

    @admin.display
    def url(self, delivery: Delivery) -> str:
        return delivery.webhook.url

    @admin.display(description="attempts")
    def tried(self, delivery: Delivery) -> int:
        return len(delivery.attempts)

    @admin.display
    def last_error(self, delivery: Delivery) -> str:
        return (delivery.attempts[-1]["error"] or "-") if delivery.attempts else "-"

    @admin.display(description="attempts")
    def attempts_shown(self, delivery: Delivery) -> str:
        lines = "\n".join(
            f"{a['at']}  {a['status'] or 'no answer'}  {a['duration_ms']} ms  {a['error'] or ''}"
            for a in delivery.attempts
        )
        return format_html('<pre class="as-it-is">{}</pre>', lines or "-")

    @admin.display(description="response body")
    def response_body_shown(self, delivery: Delivery) -> str:
        return format_html('<pre class="as-it-is">{}</pre>', delivery.response_body or "-")

    def has_resend_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("webhooks.operate_delivery")

    @confirmed(
        "Send the selected deliveries once more",
        "Each is sent again under the same id, in the order of its webhook and before what is newer there.",
        "resend",
        only=~Q(state=DeliveryState.PENDING) & Q(webhook__enabled=True),
        most=MOST,
        named=_delivery,
    )
    def resend(self, request: HttpRequest, chosen: QuerySet[Any], reason: str) -> None:
        sent = 0
        for delivery in chosen:
            if owning.resend(delivery.webhook, delivery.uid):
                sent += 1
                self.log_change(request, delivery, f"sent once more: {reason}")
        self.message_user(request, f"{sent} sent once more.")
