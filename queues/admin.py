"""Queues and requests for operators: seen, searched and steered by the same verbs as the API's.

Nothing is written by hand but a queue's limit: a counter or a status that somebody edits breaks the order or loses
work. No page counts a table, and each filter reads an index.
"""

from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.contrib import admin, messages
from django.db.models import OuterRef, QuerySet, Subquery
from django.forms import Field, IntegerField
from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html

from accounts.models import User
from project.admin import FastAdmin, ReadOnlyAdmin
from queues import interventions, kinds
from queues.accepting import QueueFull, SessionOver
from queues.interventions import NotPossible
from queues.looking import first_id, having
from queues.models import Attempt, OperatorAction, Request, UserQueue
from queues.presenting import as_text
from queues.states import QueueState, Status

LONGEST_TEXT = 20_000  # characters of a payload, result or error on a page
MOST_FOUND = 1000  # users that a search may mean


def searched(request: HttpRequest, term: str) -> list[int]:
    """The queues of the users that a search for `term` among users finds."""
    users, _ = admin.site.get_model_admin(User).get_search_results(request, User.objects.order_by(), term)
    return list(UserQueue.objects.filter(user__in=users.values("id")).values_list("id", flat=True)[:MOST_FOUND])


class StateFilter(admin.SimpleListFilter):
    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(str(value), str(label)) for value, label in QueueState.choices]

    def queryset(self, request: HttpRequest, queryset: QuerySet[UserQueue]) -> QuerySet[UserQueue]:
        if self.value() not in QueueState.values:
            return queryset
        return queryset.filter(state=self.value(), active=self.value() != QueueState.IDLE)


class StatusFilter(admin.SimpleListFilter):
    title = "status"
    parameter_name = "status"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(str(value), str(label)) for value, label in Status.choices]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Request]) -> QuerySet[Request]:
        status = self.value()
        return having(queryset, Status(status)) if status in Status.values else queryset


class KindFilter(admin.SimpleListFilter):
    """The kinds that there are handlers for: asking the table which it holds would read all of it."""

    title = "kind"
    parameter_name = "kind"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(name, name) for name in sorted({kind.name for kind in kinds.all_kinds()})]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Request]) -> QuerySet[Request]:
        return queryset.filter(kind=self.value()) if self.value() else queryset


class CreatedFilter(admin.SimpleListFilter):
    """By the time in the id (UUID version 7), which the list is ordered by."""

    title = "created"
    parameter_name = "created"
    SPANS = {"hour": timedelta(hours=1), "day": timedelta(days=1), "week": timedelta(days=7)}

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(name, f"within the last {name}") for name in self.SPANS]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Request]) -> QuerySet[Request]:
        span = self.SPANS.get(self.value() or "")
        return queryset.filter(id__gte=first_id(timezone.now() - span)) if span else queryset


class Steering(FastAdmin):
    """Actions for who may change what they see; what is not possible is said and leaves the others alone."""

    def has_steer_permission(self, request: HttpRequest) -> bool:
        return bool(request.user.has_perm(f"queues.change_{self.opts.model_name}"))

    def steer(self, request: HttpRequest, chosen: QuerySet[Any], verb: Callable[[Any], object], done: str) -> None:
        count = 0
        for one in chosen:
            try:
                verb(one.pk)
            except (NotPossible, QueueFull) as why:
                self.message_user(request, f"{one.pk}: {why}", messages.WARNING)
            except SessionOver:
                self.message_user(request, f"{one.pk}: its user is not active.", messages.WARNING)
            else:
                count += 1
                self.log_change(request, one, done)
        self.message_user(request, f"{count} {done}.")


@admin.register(UserQueue)
class UserQueueAdmin(Steering):
    list_display = ("id", "owner", "state", "paused", "depth", "oldest_waiting", "running_since", "state_since")
    list_display_links = ("id", "owner")
    list_select_related = ("user",)
    list_filter = (StateFilter, "paused")
    search_fields = ("user__username",)  # shows the field; `get_search_results` searches
    search_help_text = "A user's id, e-mail address, name or its beginning."
    actions = ("pause", "resume", "purge")
    fields = (
        "id", "user", "state", "state_since", "paused", "depth", "oldest_waiting", "running_since", "waiting_limit",
        "last_seq", "published_seq", "done_seq", "fence", "holder", "lease_until", "claimed", "careful_to", "wake_at",
        "seconds_each", "moved_at", "requests_of_it",
    )  # fmt: skip
    readonly_fields = tuple(name for name in fields if name != "waiting_limit")

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def get_queryset(self, request: HttpRequest) -> QuerySet[UserQueue]:
        waiting = Request.objects.filter(queue=OuterRef("pk"), seq__gt=OuterRef("done_seq"), finished_at=None)
        oldest = waiting.order_by("seq").values("created_at")[:1]
        queues: QuerySet[UserQueue] = super().get_queryset(request)
        return queues.annotate(oldest_waiting_at=Subquery(oldest))

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        term = search_term.strip().replace("\0", "")
        return (queryset.filter(id__in=searched(request, term)) if term else queryset), False

    def formfield_for_dbfield(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Field | None:
        if db_field.name == "waiting_limit":
            return IntegerField(min_value=0, max_value=2**31 - 1, required=False, help_text=db_field.help_text)
        return super().formfield_for_dbfield(db_field, request, **kwargs)

    def save_model(self, request: HttpRequest, obj: UserQueue, form: Any, change: bool) -> None:
        # Its one column: the others have moved on since the page was shown.
        UserQueue.objects.filter(id=obj.id).update(waiting_limit=obj.waiting_limit)

    @admin.display(description="user")
    def owner(self, queue: UserQueue) -> str:
        return queue.user.username

    @admin.display
    def depth(self, queue: UserQueue) -> int:
        return queue.depth

    @admin.display
    def oldest_waiting(self, queue: Any) -> datetime | None:
        oldest: datetime | None = queue.oldest_waiting_at
        return oldest

    @admin.display
    def running_since(self, queue: UserQueue) -> datetime | None:
        return queue.claimed_at if queue.state == QueueState.DRAINING else None

    @admin.display(description="requests")
    def requests_of_it(self, queue: UserQueue) -> str:
        return format_html('<a href="{}?q={}">all</a>', reverse("admin:queues_request_changelist"), queue.user_id)

    @admin.action(description="Pause the selected queues", permissions=["steer"])
    def pause(self, request: HttpRequest, queryset: QuerySet[UserQueue]) -> None:
        self.steer(request, queryset, interventions.pause, "paused")

    @admin.action(description="Resume the selected queues", permissions=["steer"])
    def resume(self, request: HttpRequest, queryset: QuerySet[UserQueue]) -> None:
        self.steer(request, queryset, interventions.resume, "resumed")

    @admin.action(description="Cancel all that waits in the selected queues", permissions=["steer"])
    def purge(self, request: HttpRequest, queryset: QuerySet[UserQueue]) -> None:
        self.steer(request, queryset, interventions.purge, "purged")


class AttemptInline(admin.TabularInline):  # type: ignore[type-arg]  # it is generic for mypy alone
    model = Attempt
    fields = readonly_fields = ("number", "started_at", "finished_at", "outcome", "error_text")
    can_delete = False
    extra = 0

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    @admin.display(description="error")
    def error_text(self, attempt: Attempt) -> str:
        return shortened(f"{attempt.error['type']}: {attempt.error['message']}") if attempt.error else "-"


@admin.register(Request)
class RequestAdmin(Steering, ReadOnlyAdmin):
    list_display = ("id", "owner", "seq", "kind", "current_status", "attempt", "created_at", "finished_at")
    list_select_related = ("queue__user",)
    list_filter = (StatusFilter, KindFilter, CreatedFilter)
    search_fields = ("id",)
    search_help_text = "A request's id, or a user's id, e-mail address, name or its beginning."
    actions = ("cancel", "retry", "skip")
    inlines = (AttemptInline,)
    fields = (
        "id", "owner", "seq", "kind", "version", "current_status", "attempt", "max_attempts", "on_failure",
        "created_at", "not_before", "expires_at", "started_at", "finished_at", "cancel_asked_at", "retry_of_id",
        "trace", "payload_shown", "result_shown", "error_shown",
    )  # fmt: skip
    readonly_fields = fields

    def get_queryset(self, request: HttpRequest) -> QuerySet[Request]:
        requests: QuerySet[Request] = super().get_queryset(request)
        match = request.resolver_match
        if match is not None and match.url_name == "queues_request_changelist":
            return requests.defer("payload", "result", "error")  # up to a megabyte each
        return as_text(requests.select_related("queue__user"))

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        term = search_term.strip().replace("\0", "")
        if not term:
            return queryset, False
        with suppress(ValueError):
            if (exact := queryset.filter(id=UUID(term))).exists():
                return exact, False
        return queryset.filter(queue_id__in=searched(request, term)), False

    @admin.display(description="user")
    def owner(self, request: Request) -> str:
        return request.queue.user.username

    @admin.display(description="status")
    def current_status(self, request: Request) -> str:
        return request.status_now.value

    @admin.display(description="retry of")
    def retry_of_id(self, request: Request) -> str:
        return str(request.retry_of_id or "-")

    @admin.display(description="payload")
    def payload_shown(self, request: Any) -> str:
        return shortened(request.payload_text)

    @admin.display(description="result")
    def result_shown(self, request: Any) -> str:
        return shortened(request.result_text or "-")

    @admin.display(description="error")
    def error_shown(self, request: Any) -> str:
        return shortened(request.error_text or "-")

    @admin.action(description="Cancel the selected requests", permissions=["steer"])
    def cancel(self, request: HttpRequest, queryset: QuerySet[Request]) -> None:
        self.steer(request, queryset, interventions.cancel, "cancelled, or asked to stop")

    @admin.action(description="Try the selected requests again", permissions=["steer"])
    def retry(self, request: HttpRequest, queryset: QuerySet[Request]) -> None:
        self.steer(request, queryset, interventions.retry, "tried again")

    @admin.action(description="Skip the selected requests, which block their queues", permissions=["steer"])
    def skip(self, request: HttpRequest, queryset: QuerySet[Request]) -> None:
        self.steer(request, queryset, interventions.skip, "skipped")


@admin.register(OperatorAction)
class OperatorActionAdmin(ReadOnlyAdmin):
    list_display = ("at", "by", "command", "reason", "finished_at", "outcome")
    search_fields = ("by", "command", "reason")


def shortened(text: str) -> str:
    """Somebody else's text as text: escaped, cut, its lines kept."""
    cut = text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]} .. ({len(text)} characters)"
    return format_html('<pre style="white-space: pre-wrap; word-break: break-all">{}</pre>', cut)
