"""What the admin's lists can be narrowed to, each by an index; none asks a table which values it holds."""

from datetime import timedelta
from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone

from queues import kinds
from queues.models import Request, UserQueue
from queues.operations.selectors import first_id, having, newest_having
from queues.states import QueueState, Status


class StateFilter(admin.SimpleListFilter):
    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(str(value), str(label)) for value, label in QueueState.choices]

    def queryset(self, request: HttpRequest, queryset: QuerySet[UserQueue]) -> QuerySet[UserQueue]:
        if self.value() not in QueueState.values:
            return queryset
        return queryset.filter(state=self.value(), active=self.value() != QueueState.IDLE)


class PausedFilter(admin.SimpleListFilter):
    title = "paused"
    parameter_name = "paused"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("yes", "paused"), ("no", "not paused")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[UserQueue]) -> QuerySet[UserQueue]:
        return queryset.filter(paused=self.value() == "yes") if self.value() in ("yes", "no") else queryset


class StatusFilter(admin.SimpleListFilter):
    title = "status"
    parameter_name = "status"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(str(value), str(label)) for value, label in Status.choices]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Request]) -> QuerySet[Request]:
        status = self.value()
        if status not in Status.values:
            return queryset
        # A search finds few queues; an action is for all that match, however long they are sought.
        if request.GET.get("q") or request.method == "POST":
            return having(queryset, Status(status))
        return newest_having(queryset, Status(status), KindFilter.meant(request.GET.get("kind")))


class KindFilter(admin.SimpleListFilter):
    """The kinds that there are handlers for: asking the table which it holds would read all of it."""

    title = "kind"
    parameter_name = "kind"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(name, name) for name in sorted({kind.name for kind in kinds.all_kinds()})]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Request]) -> QuerySet[Request]:
        kind = self.meant(self.value())
        return queryset.filter(kind=kind) if kind else queryset

    @staticmethod
    def meant(value: str | None) -> str:
        """What PostgreSQL can look for."""
        return (value or "").replace("\0", "")


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
