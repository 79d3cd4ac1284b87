"""Rejected messages for operators: seen, searched and replayed."""

from typing import Any

from django.contrib import admin, messages
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.utils.html import format_html

from processing.kafka.models import RejectedMessage
from processing.kafka.rejected import replay
from project.admin.base import ReadOnlyAdmin
from project.admin.confirming import confirmed
from queues.exceptions import NotPossible

MOST_REPLAYED = 500  # in one request, each with its line in the log


def _named(row: RejectedMessage) -> str:
    return f"{row}, {row.reason}: {row.detail[:300]}"


@admin.register(RejectedMessage)
class RejectedMessageAdmin(ReadOnlyAdmin):
    list_display = ("id", "topic", "partition", "offset", "event_id", "reason", "detail", "rejected_at", "replayed_at")
    list_filter = ("reason", ("replayed_at", admin.EmptyFieldListFilter))
    search_fields = ("=event_id", "=topic")
    fields = readonly_fields = (
        "topic", "partition", "offset", "event_id", "reason", "detail", "rejected_at", "replayed_at", "request_id",
        "key_shown", "value_shown", "headers",
    )  # fmt: skip
    actions = ("replay",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return super().get_queryset(request).defer("key", "value", "headers")

    @admin.display(description="key")
    def key_shown(self, row: RejectedMessage) -> str:
        return _shown(row.key)

    @admin.display(description="value")
    def value_shown(self, row: RejectedMessage) -> str:
        return _shown(row.value)

    def has_replay_permission(self, request: HttpRequest) -> bool:
        return bool(request.user.has_perm("kafka.replay_rejectedmessage"))

    @confirmed(
        "Replay the selected messages",
        "Each is read as if it came now. What fits becomes a request, at the end of its user's queue; what does not"
        " stays here and says why.",
        "replay",
        only=Q(replayed_at=None),
        most=MOST_REPLAYED,
        named=_named,
    )
    def replay(self, request: HttpRequest, chosen: QuerySet[Any], reason: str) -> None:
        count = 0
        for row in chosen.order_by("topic", "partition", "offset", "id"):
            try:
                request_id = replay(row.id)
                count += 1
                self.log_change(request, row, f"replayed as request {request_id}: {reason}")
            except (NotPossible, RejectedMessage.DoesNotExist) as why:
                self.message_user(request, f"{row}: {why}", messages.WARNING)
        self.message_user(request, f"{count} replayed.")


def _shown(value: Any) -> str:
    """Bytes as text; what is no UTF-8 is escaped."""
    text = "-" if value is None else bytes(value).decode(errors="backslashreplace")
    return format_html('<pre class="as-it-is">{}</pre>', text)
