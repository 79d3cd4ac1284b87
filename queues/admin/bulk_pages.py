"""Bulk actions for operators: each one's progress, a button that cancels it, and the list of those before."""

from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponseRedirect
from django.urls import path, reverse
from django.urls.resolvers import URLPattern
from django.utils import timezone
from django.views.decorators.http import require_POST

from project.admin.base import ReadOnlyAdmin
from queues.admin.bulk_steps import control_of, end, may
from queues.models import BulkAction

UNTAKEN_SECONDS = 5.0  # after so long without a first group, no dispatcher lives


@admin.register(BulkAction)
class BulkActionAdmin(ReadOnlyAdmin):
    list_display = ("what", "user", "reason", "progress", "created_at", "ended")
    list_select_related = ("user",)
    change_form_template = "admin/queues/bulk_action.html"
    fields = readonly_fields = ("user", "reason", "created_at", "finished_at")

    class Media:
        css = {"all": ("operating/operating.css",)}

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return request.user.has_perm("queues.view_userqueue") or request.user.has_perm("queues.view_request")

    def has_module_permission(self, request: HttpRequest) -> bool:
        return self.has_view_permission(request)

    def get_queryset(self, request: HttpRequest) -> QuerySet[BulkAction]:
        return super().get_queryset(request).defer("targets")

    def get_urls(self) -> list[URLPattern]:
        cancel = self.admin_site.admin_view(require_POST(self.cancel))
        return [path("<int:pk>/cancel/", cancel, name="queues_bulkaction_cancel"), *super().get_urls()]

    def cancel(self, request: HttpRequest, pk: int) -> HttpResponseRedirect:
        """Do no more of it. The group that is under way is waited for, and stays done."""
        with transaction.atomic():
            found = BulkAction.objects.select_for_update(no_key=True).defer("targets")
            action = found.filter(pk=pk, finished_at=None).first()
            if action is not None:
                if not self._may_cancel(request, action):
                    raise PermissionDenied
                end(action, f"Cancelled by {request.user.get_username()}.")
        if action is None:
            self.message_user(request, "It was over already.", messages.WARNING)
        return HttpResponseRedirect(reverse("admin:queues_bulkaction_change", args=[pk]))

    def _may_cancel(self, request: HttpRequest, action: BulkAction) -> bool:
        what = control_of(action)
        return what is None or may(request.user, action, what)  # type: ignore[arg-type]  # who is here is staff

    def render_change_form(self, request: HttpRequest, context: dict[str, Any], *args: Any, **more: Any) -> Any:
        action = more["obj"]
        what = control_of(action)
        shown = {
            "title": what.label if what else action.name,
            "subtitle": None,
            "action": action,
            "what": what,
            "untaken": action.handled_at is None and _age(action) > UNTAKEN_SECONDS,
            "may_cancel": action.finished_at is None and self._may_cancel(request, action),
            "list": reverse(f"admin:queues_{action.page}_changelist"),
        }
        return super().render_change_form(request, {**context, **shown}, *args, **more)

    @admin.display(description="action")
    def what(self, action: BulkAction) -> str:
        what = control_of(action)
        return what.label if what else action.name

    @admin.display
    def progress(self, action: BulkAction) -> str:
        return f"{action.handled:,} of {action.total:,}"

    @admin.display(description="ended")
    def ended(self, action: BulkAction) -> str:
        return action.stopped or ("done" if action.finished_at else "under way")


def _age(action: BulkAction) -> float:
    return float((timezone.now() - action.created_at).total_seconds())
