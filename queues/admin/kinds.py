"""Kinds for operators: their limits here, what runs and waits, pause and resume, other limits than are declared."""

from collections.abc import Callable
from typing import Any

from django import forms
from django.contrib import admin
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.admin.views.main import ChangeList
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.html import format_html

from project.admin.base import FastAdmin
from project.admin.confirming import Why, confirmed
from queues.admin.ages import exact
from queues.kinds import Rate
from queues.limits import deployment
from queues.models import KindLimit


class KindForm(forms.ModelForm):  # type: ignore[type-arg]  # it is generic for mypy alone
    """Other limits than are declared, and why."""

    max_concurrency = forms.IntegerField(
        required=False,
        min_value=0,
        max_value=2**31 - 1,
        help_text="Most that run at once. 0: no limit; empty: as declared.",
    )
    rate_here = forms.CharField(
        label="Rate",
        required=False,
        help_text="Most that begin, as 100/m or 5/10s. none: no limit; empty: as declared.",
    )
    reason = Why.base_fields["reason"]

    class Meta:
        model = KindLimit
        fields = ("max_concurrency",)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        row = self.instance
        if row.rate is not None:
            self.initial["rate_here"] = "none" if row.rate == 0 else str(Rate(row.rate, row.seconds))

    def clean_rate_here(self) -> Rate | int | None:
        text = self.cleaned_data["rate_here"].strip()
        if text in ("", "none"):
            return 0 if text else None
        try:
            return Rate.parse(text)
        except ValueError as wrong:
            raise forms.ValidationError(str(wrong).capitalize()) from None


class KindList(ChangeList):
    """Each row with what runs and waits, from one statement for all."""

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        found = {kind.kind: kind for kind in deployment.at_work()}
        self.result_list = list(self.result_list)
        for row in self.result_list:
            row.at_work = found.get(row.kind)


@admin.register(KindLimit)
class KindAdmin(FastAdmin):
    list_display = ("kind", "at_once", "begin", "set_here", "state", "running", "waiting", "longest")
    ordering = ("kind",)
    search_fields = ("kind",)
    form = KindForm
    fields = ("kind", "declared", "state", "max_concurrency", "rate_here", "reason")
    readonly_fields = ("kind", "declared", "state")
    actions = ("pause", "resume")

    class Media:
        css = {"all": ("operating/operating.css",)}

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_operate_permission(self, request: HttpRequest) -> bool:
        return bool(request.user.has_perm("queues.operate_kindlimit"))

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return KindList

    @confirmed(
        "Pause the selected kinds",
        "Nothing of them begins, for any user, until they are resumed: a queue stands where its next request is of such"
        " a kind. What runs ends; accepting goes on.",
        "operate",
    )
    def pause(self, request: HttpRequest, chosen: QuerySet[KindLimit], reason: str) -> None:
        by = f"{request.user.get_username()}: {reason}"
        self._each(request, chosen, lambda kind: deployment.pause(kind, by), "paused", reason)

    @confirmed(
        "Resume the selected kinds", "They begin again, for all users; who waited longest goes first.", "operate"
    )
    def resume(self, request: HttpRequest, chosen: QuerySet[KindLimit], reason: str) -> None:
        self._each(request, chosen, deployment.resume, "resumed", reason)

    def _each(
        self, request: HttpRequest, chosen: QuerySet[KindLimit], verb: Callable[[str], None], done: str, reason: str
    ) -> None:
        for row in chosen:
            verb(row.kind)
        assert request.user.pk is not None  # noqa: S101  (nobody else comes here)
        LogEntry.objects.log_actions(request.user.pk, chosen, CHANGE, f"{done}: {reason}")
        self.message_user(request, f"{len(chosen)} {done}.")

    def save_model(self, request: HttpRequest, obj: KindLimit, form: Any, change: bool) -> None:
        given = form.cleaned_data
        deployment.set_limits(obj.kind, max_concurrency=given["max_concurrency"], rate=given["rate_here"])

    def construct_change_message(self, request: HttpRequest, form: Any, formsets: Any, add: bool = False) -> Any:
        given = form.cleaned_data
        told = f"max_concurrency {given['max_concurrency']}, rate {given['rate_here']}"
        return f"limited: {given['reason']} ({told})"

    @admin.display(description="as declared")
    def declared(self, row: KindLimit) -> str:
        rate = "" if row.declared_rate is None else f"{Rate(row.declared_rate, row.declared_seconds or 1)} begin"
        most = f"{row.declared_concurrency} at once" if row.declared_concurrency else ""
        return ", ".join(filter(None, (most, rate))) or "no limit"

    @admin.display(description="at once")
    def at_once(self, row: Any) -> str:
        return "-" if row.most is None else str(row.most)

    @admin.display(description="begin")
    def begin(self, row: Any) -> str:
        return "-" if row.rate_most is None else str(Rate(row.rate_most, row.rate_seconds))

    @admin.display(description="limits")
    def set_here(self, row: Any) -> str:
        return "as declared" if row.max_concurrency is None and row.rate is None else "set here"

    @admin.display(description="state")
    def state(self, row: Any) -> str:
        return format_html('<span class="state paused">paused</span> {}', row.paused_by) if row.paused else "not paused"

    @admin.display(description="runs")
    def running(self, row: Any) -> str:
        found = row.at_work.running if row.at_work else None
        return "-" if found is None else str(found)

    @admin.display(description="queues that wait")
    def waiting(self, row: Any) -> int:
        return row.at_work.waiting if row.at_work else 0

    @admin.display(description="the first one for")
    def longest(self, row: Any) -> str:
        seconds = row.at_work.waits_seconds if row.at_work else None
        return "-" if seconds is None else exact(seconds)
