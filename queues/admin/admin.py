"""Queues and requests for operators: seen, searched and steered by the same verbs as the API's.

Nothing is written by hand but a queue's limit: a counter or a status that somebody edits breaks the order or loses
work. No page counts a table, and each filter reads an index.
"""

from contextlib import suppress
from datetime import datetime
from typing import Any
from uuid import UUID

from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.db.models import OuterRef, QuerySet, Subquery
from django.forms import ModelForm
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html

from accounts.models import User
from project.admin.base import ReadOnlyAdmin
from queues.admin import queue_detail
from queues.admin.actions import OF_QUEUES, OF_REQUESTS
from queues.admin.bulk_actions import Limit, Steering, Why
from queues.admin.filters import CreatedFilter, KindFilter, StateFilter, StatusFilter
from queues.models import Attempt, OperatorAction, Request, UserQueue
from queues.operations.selectors import of_queues
from queues.representation.shape import as_text
from queues.states import QueueState

LONGEST_TEXT = 20_000  # characters of a payload, result or error on a page
MOST_FOUND = 300  # users of one e-mail address, or with one beginning of their names, that a search may mean


def searched(term: str) -> list[int]:
    """The queues of the users that `term` may mean."""
    return list(UserQueue.objects.filter(user__in=User.objects.meant_by(term, MOST_FOUND)).values_list("id", flat=True))


class QueueForm(ModelForm):  # type: ignore[type-arg]  # it is generic for mypy alone
    """A queue's limit, and why it is changed."""

    waiting_limit = Limit.base_fields["waiting_limit"]
    reason = Why.base_fields["reason"]


@admin.register(UserQueue)
class UserQueueAdmin(Steering):
    list_display = ("id", "owner", "state", "paused", "depth", "oldest_waiting", "running_since", "state_since")
    list_display_links = ("id", "owner")
    list_select_related = ("user",)
    list_filter = (StateFilter, "paused")
    search_fields = ("user__username",)  # shows the field; `get_search_results` searches
    search_help_text = "A user's id, e-mail address, name or its beginning."
    actions = tuple(what.action() for what in OF_QUEUES)
    form = QueueForm
    change_form_template = "admin/queues/queue.html"
    fields = (
        "waiting_limit", "reason", "id", "user", "state", "state_since", "depth", "oldest_waiting", "running_since",
        "paused", "held", "paused_at", "paused_by", "last_seq", "published_seq", "done_seq", "given_up_ahead", "fence",
        "holder", "lease_until", "claimed", "careful_to", "wake_at", "seconds_each", "moved_at", "requests_of_it",
    )  # fmt: skip
    readonly_fields = tuple(name for name in fields if name not in ("waiting_limit", "reason"))

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
        return (queryset.filter(id__in=searched(term)) if term else queryset), False

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        may = self.has_change_permission(request, obj)
        return self.fields if may else tuple(name for name in self.fields if name != "reason")

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> Any:
        shown = queue_detail.shown(object_id, request.GET.get("after", ""))
        return super().change_view(request, object_id, form_url, {"page": shown, **(extra_context or {})})

    def construct_change_message(self, request: HttpRequest, form: Any, formsets: Any, add: bool = False) -> Any:
        return f"limited: {form.cleaned_data['reason']} (waiting_limit {form.cleaned_data['waiting_limit']})"

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


class AttemptInline(admin.TabularInline):  # type: ignore[type-arg]  # it is generic for mypy alone
    model = Attempt
    fields = readonly_fields = ("number", "started_at", "finished_at", "outcome", "error_text", "traceback_text")
    can_delete = False
    extra = 0

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    @admin.display(description="error")
    def error_text(self, attempt: Attempt) -> str:
        return shortened(f"{attempt.error['type']}: {attempt.error['message']}") if attempt.error else "-"

    @admin.display(description="traceback")
    def traceback_text(self, attempt: Attempt) -> str:
        return shortened(attempt.traceback) if attempt.traceback else "-"


@admin.register(Request)
class RequestAdmin(Steering, ReadOnlyAdmin):
    list_display = ("id", "owner", "seq", "kind", "current_status", "attempt_now", "created_at", "finished_at")
    list_select_related = ("queue__user",)
    list_filter = (StatusFilter, KindFilter, CreatedFilter)
    search_fields = ("id",)
    search_help_text = "A request's id, or a user's id, e-mail address, name or its beginning."
    actions = tuple(what.action() for what in OF_REQUESTS)
    change_form_template = "admin/queues/steered.html"
    inlines = (AttemptInline,)
    fields = (
        "id", "owner", "seq", "kind", "version", "current_status", "attempt_now", "max_attempts", "on_failure",
        "created_at", "not_before", "expires_at", "started", "finished_at", "cancel_asked_at", "retry_of_id",
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
        queues = searched(term)
        if request.method == "POST":  # an action is for all that match, however long they are sought
            return queryset.filter(queue_id__in=queues), False
        return of_queues(queryset, queues), False

    @admin.display(description="user")
    def owner(self, request: Request) -> str:
        return request.queue.user.username

    @admin.display(description="status")
    def current_status(self, request: Request) -> str:
        return request.status_now.value

    @admin.display(description="attempt")
    def attempt_now(self, request: Request) -> int:
        return request.attempt_now

    @admin.display(description="started at")
    def started(self, request: Request) -> datetime | None:
        return request.started

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


@admin.register(OperatorAction)
class OperatorActionAdmin(ReadOnlyAdmin):
    list_display = ("at", "by", "command", "reason", "finished_at", "outcome")
    search_fields = ("by", "command", "reason")


@admin.register(LogEntry)
class LogEntryAdmin(ReadOnlyAdmin):
    """What staff did in the admin: who, what, why, to how many."""

    list_display = ("action_time", "user", "content_type", "object_repr", "told")
    list_select_related = ("user", "content_type")
    fields = readonly_fields = ("action_time", "user", "content_type", "object_id", "object_repr", "told")
    search_fields = ("user__username",)  # shows the field; `get_search_results` searches
    search_help_text = "A user's id, e-mail address, name or its beginning."

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        term = search_term.strip().replace("\0", "")
        return (queryset.filter(user__in=User.objects.meant_by(term, MOST_FOUND)) if term else queryset), False

    @admin.display(description="what was done")
    def told(self, entry: LogEntry) -> str:
        return entry.get_change_message()


def shortened(text: str) -> str:
    """Somebody else's text as text: escaped, cut, its lines kept."""
    cut = text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]} .. ({len(text)} characters)"
    return format_html('<pre class="as-it-is">{}</pre>', cut)
