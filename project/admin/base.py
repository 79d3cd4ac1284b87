"""A base for admin pages that stay fast on a million rows."""

from typing import Any

from django.contrib import admin
from django.contrib.admin.widgets import AdminSplitDateTime
from django.core.exceptions import PermissionDenied
from django.core.paginator import Paginator
from django.db import connections, models
from django.utils.functional import cached_property
from django.utils.text import capfirst

COUNTED = 10_000


class UncountedPaginator(Paginator):
    """Counts to COUNTED and no further: a whole table has as many rows as PostgreSQL estimates, a selection so many."""

    @cached_property
    def count(self) -> int:
        rows: Any = self.object_list
        counted: int = rows.order_by()[: COUNTED + 1].count()
        if counted <= COUNTED or rows.query.where:
            return counted
        with connections[rows.db].cursor() as cursor:
            cursor.execute(
                "SELECT reltuples::bigint FROM pg_class WHERE oid = %s::regclass", [rows.model._meta.db_table]
            )
            return max(counted, cursor.fetchone()[0])


class DateAndTime(AdminSplitDateTime):
    """Django's two fields, each with a name for screen readers."""

    def __init__(self, attrs: Any = None) -> None:
        super().__init__(attrs)
        for widget, name in zip(self.widgets, ("Date", "Time"), strict=True):
            widget.attrs["aria-label"] = name


class FastAdmin(admin.ModelAdmin):
    """No full counts. Newest first by the primary key, so that the first page is an index scan."""

    formfield_overrides = {models.DateTimeField: {"widget": DateAndTime}}
    paginator = UncountedPaginator
    show_full_result_count = False
    ordering = ("-pk",)
    list_per_page = 50

    def changelist_view(self, request: Any, extra_context: Any = None) -> Any:
        """Refuse an action that is not offered to this user: a form need not come from a page of ours."""
        if request.method == "POST":
            asked = set(request.POST.getlist("action")) - {""}
            if not asked <= set(self.get_actions(request)):
                raise PermissionDenied
        title = {"title": capfirst(self.opts.verbose_name_plural)}  # Django's says "Select .. to change"
        return super().changelist_view(request, title | (extra_context or {}))


class ReadOnlyAdmin(FastAdmin):
    """For rows that only the code may write: seen and searched, not made, changed or deleted by hand."""

    def has_add_permission(self, request: Any, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: Any, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: Any, obj: Any = None) -> bool:
        return False
