"""Queues and requests for operators: seen, searched and controlled by the same verbs as the API's.

Nothing is written by hand but a queue's limit: a counter or a status that somebody edits breaks the order or loses
work. No page counts a table, and each filter reads an index.
"""

from contextlib import suppress
from typing import Any
from uuid import UUID

from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.db.models import Q, QuerySet
from django.forms import ModelForm
from django.http import HttpRequest
from django.utils import timezone
from django.utils.html import format_html

from accounts.admin import FoundByUser
from accounts.models import User
from project.admin.base import ReadOnlyAdmin
from project.admin.confirming import Why
from queues.admin import queue_detail, request_detail
from queues.admin.actions import OF_QUEUES, OF_REQUESTS
from queues.admin.ages import exact, since
from queues.admin.bulk_actions import ControlAdmin, Limit
from queues.admin.filters import CreatedFilter, KindFilter, PausedFilter, StateFilter, StatusFilter
from queues.lifecycle import control
from queues.models import OperatorAction, Request, UserQueue
from queues.operations.selectors import DEPTH, of_queues, with_oldest
from queues.representation.shape import as_text
from queues.states import QueueState


def searched(term: str) -> list[int]:
    """The queues of the users that `term` may mean."""
    users = User.objects.meant_by(term, FoundByUser.most_found)
    return list(UserQueue.objects.filter(user__in=users).values_list("id", flat=True))


class Styled:
    """Pages with the operators' own style sheet."""

    class Media:
        css = {"all": ("operating/operating.css",)}


class QueueForm(ModelForm):  # type: ignore[type-arg]  # it is generic for mypy alone
    """A queue's limit, and why it is changed."""

    waiting_limit = Limit.base_fields["waiting_limit"]
    reason = Why.base_fields["reason"]


@admin.register(UserQueue)
class UserQueueAdmin(Styled, ControlAdmin):
    list_display = ("owner", "state_shown", "depth_shown", "oldest_waiting", "running_for", "state_for", "number")
    list_display_links = ("owner",)
    list_select_related = ("user",)
    list_filter = (StateFilter, PausedFilter)
    search_fields = ("user__username",)  # shows the field; `get_search_results` searches
    search_help_text = "A user's id, e-mail address, name or its beginning."
    controls = OF_QUEUES
    actions = tuple(what.action() for what in OF_QUEUES)
    form = QueueForm
    change_form_template = "admin/queues/queue.html"
    counters = (
        "id", "user", "state", "state_since", "paused", "operator_paused", "paused_at", "paused_by", "last_seq",
        "published_seq", "done_seq", "given_up_ahead", "fence", "worker_id", "lease_until", "claimed",
        "crash_recovery_until_seq", "wake_at", "avg_service_seconds", "moved_at", "bytes_stored", "generation",
    )  # fmt: skip
    readonly_fields = counters

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def get_queryset(self, request: HttpRequest) -> QuerySet[UserQueue]:
        """Sorted by what idle queues do not have, only the others are listed: nobody sorts a million users."""
        queues: QuerySet[UserQueue] = with_oldest(super().get_queryset(request)).annotate(waiting=DEPTH)
        match = request.resolver_match
        if match is not None and match.url_name == "queues_userqueue_changelist" and request.GET.get("o"):
            queues = queues.filter(Q(active=True) | Q(unpublished=True) | Q(paused=True))
        return queues

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        term = search_term.strip().replace("\0", "")
        return (queryset.filter(id__in=searched(term)) if term else queryset), False

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        limit = ("waiting_limit", "reason") if self.has_change_permission(request, obj) else ("waiting_limit",)
        return (
            ("Limit", {"fields": limit}),
            ("Counters and lease", {"fields": self.counters, "classes": ("collapse",)}),
        )

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> Any:
        page = queue_detail.page_of(object_id, request.GET.get("after", ""))
        title = {"title": f"The queue of {page.queue.user.username}", "subtitle": None} if page else {}
        return super().change_view(request, object_id, form_url, {"page": page, **title, **(extra_context or {})})

    def construct_change_message(self, request: HttpRequest, form: Any, formsets: Any, add: bool = False) -> Any:
        return f"limited: {form.cleaned_data['reason']} (waiting_limit {form.cleaned_data['waiting_limit']})"

    def save_model(self, request: HttpRequest, obj: UserQueue, form: Any, change: bool) -> None:
        control.limit(obj.id, obj.waiting_limit)  # the other columns have moved on since the page was shown

    @admin.display(description="user")
    def owner(self, queue: UserQueue) -> str:
        return queue.user.username

    @admin.display(description="state")
    def state_shown(self, queue: UserQueue) -> str:
        return format_html("{}{}", state_label(queue.state), state_label("paused") if queue.paused else "")

    @admin.display(description="depth", ordering="waiting")
    def depth_shown(self, queue: UserQueue) -> int:
        return queue.depth

    @admin.display(description="oldest waiting", ordering="oldest_waiting_at")
    def oldest_waiting(self, queue: Any) -> str:
        return since(queue.oldest_waiting_at)

    @admin.display(description="runs for")
    def running_for(self, queue: UserQueue) -> str:
        return since(queue.claimed_at) if queue.state == QueueState.DRAINING else "-"

    @admin.display(description="in this state for")
    def state_for(self, queue: UserQueue) -> str:
        return since(queue.state_since)

    @admin.display(description="queue", ordering="id")
    def number(self, queue: UserQueue) -> int:
        return queue.pk


@admin.register(Request)
class RequestAdmin(Styled, ControlAdmin, ReadOnlyAdmin):
    list_display = ("named", "owner", "seq", "status_shown", "attempt_now", "age", "waited", "ran")
    list_display_links = ("named",)
    list_select_related = ("queue__user",)
    list_filter = (StatusFilter, KindFilter, CreatedFilter)
    search_fields = ("id",)
    search_help_text = "A request's id, or a user's id, e-mail address, name or its beginning."
    controls = OF_REQUESTS
    actions = tuple(what.action() for what in OF_REQUESTS)
    change_form_template = "admin/queues/request.html"
    fields = ("id", "version", "max_attempts", "on_failure", "not_before", "expires_at", "cancel_asked_at", "trace")
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

    def render_change_form(self, request: HttpRequest, context: dict[str, Any], *args: Any, **more: Any) -> Any:
        page = request_detail.page_of(more["obj"])
        titled = {"title": f"{page.request.kind} of {page.request.queue.user.username}", "subtitle": None, "page": page}
        return super().render_change_form(request, {**context, **titled}, *args, **more)

    @admin.display(description="request")
    def named(self, request: Request) -> str:
        return format_html('{} <span class="quiet">{}</span>', request.kind, str(request.pk)[-12:])

    @admin.display(description="user")
    def owner(self, request: Request) -> str:
        return request.queue.user.username

    @admin.display(description="status")
    def status_shown(self, request: Request) -> str:
        return state_label(request.status_now.value)

    @admin.display(description="attempt")
    def attempt_now(self, request: Request) -> int:
        return request.attempt_now

    @admin.display(description="accepted")
    def age(self, request: Request) -> str:
        return f"{since(request.created_at)} ago"

    @admin.display
    def waited(self, request: Request) -> str:
        could = max(request.created_at, request.not_before or request.created_at)
        return "-" if request.started is None else exact(max(0.0, (request.started - could).total_seconds()))

    @admin.display
    def ran(self, request: Request) -> str:
        if request.started is None:
            return "-"
        return exact(((request.finished_at or timezone.now()) - request.started).total_seconds())


@admin.register(OperatorAction)
class OperatorActionAdmin(ReadOnlyAdmin):
    list_display = ("at", "by", "command", "reason", "finished_at", "outcome")
    search_fields = ("by", "command", "reason")


@admin.register(LogEntry)
class LogEntryAdmin(FoundByUser, ReadOnlyAdmin):
    """What staff did in the admin: who, what, why, to how many."""

    list_display = ("action_time", "user", "content_type", "object_repr", "message")
    list_select_related = ("user", "content_type")
    fields = readonly_fields = ("action_time", "user", "content_type", "object_id", "object_repr", "message")
    search_fields = ("user__username",)

    @admin.display(description="what was done")
    def message(self, entry: LogEntry) -> str:
        return entry.get_change_message()


def state_label(state: str) -> str:
    """A state as a coloured label."""
    return format_html('<span class="state {}">{}</span> ', state, state)
