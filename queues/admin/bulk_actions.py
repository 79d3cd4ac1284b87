"""Actions of the admin that change what runs: shown beforehand with how many and whose, then done by the dispatcher.

The confirmation freezes the targets in a row (`BulkAction`) and leads to its progress. `bulk_steps` does them.
"""

import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.db.models import Case, F, QuerySet, Value, When
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse

from project.admin import tokens
from project.admin.base import FastAdmin
from project.admin.confirming import TOO_OLD, Why, confirmation
from queues.models import BulkAction, Request, UserQueue
from queues.operations.selectors import DEPTH, first_id
from queues.sql.selectors import COUNT_BY_QUEUE, FREEZE, of_chosen
from queues.states import QueueState

MOST = 100_000  # targets of one action
PATIENCE_SECONDS = 1.5  # for what is small: longer than a dispatcher takes to look
USERS_NAMED = 20


class Paced(Why):
    most = forms.IntegerField(
        label="At most", required=False, min_value=1, max_value=100_000, help_text="Empty: as fast as it goes."
    )
    per = forms.TypedChoiceField(
        label="in a", choices=[(60, "minute"), (1, "second")], coerce=int, required=False, empty_value="60"
    )

    def clean(self) -> dict[str, Any]:
        """Without a number there is no pace to tell."""
        return {k: v for k, v in self.cleaned_data.items() if k == "reason" or self.cleaned_data.get("most")}


class Limit(Why):
    waiting_limit = forms.IntegerField(
        required=False, min_value=0, max_value=2**31 - 1, help_text="Most requests waiting. Empty: the usual limit."
    )


@dataclass(frozen=True, slots=True)
class Given:
    """Who does it, and what they filled in."""

    by: str
    reason: str
    values: dict[str, Any]


@dataclass(frozen=True, slots=True)
class ControlAction:
    """What an action does to each target, in the words of the page, and who may."""

    name: str
    label: str
    means: str
    done: str
    verb: Callable[[Any, Given], object]
    form: type[Why] = Why
    right: str = "operate"
    targets: Callable[[QuerySet[Any]], QuerySet[Any]] | None = None  # others than the rows that are selected
    heads: bool = False  # touches nothing but the request that blocks each queue
    applies: Callable[[Any], bool] = lambda _: True  # to a row as it is: else its page has no button for it

    def action(self) -> Callable[..., HttpResponse | None]:
        """As Django's admin wants it."""

        @admin.action(description=self.label, permissions=[self.right])
        def run(page: "ControlAdmin", request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponse:
            return page.control(request, queryset, self)

        run.__name__ = self.name
        return run


class ControlAdmin(FastAdmin):
    """Actions for who may; what is not possible is said and leaves the others alone."""

    controls: tuple[ControlAction, ...] = ()

    def has_operate_permission(self, request: HttpRequest) -> bool:
        return bool(request.user.has_perm(f"queues.operate_{self.opts.model_name}"))

    def control(self, request: HttpRequest, chosen: QuerySet[Any], what: ControlAction) -> HttpResponse:
        """Ask first; then have a dispatcher do it. What is small is over when the next page is shown."""
        targets = what.targets(chosen) if what.targets else chosen
        if "confirmed" not in request.POST:
            return self._ask(request, targets, what, what.form())
        token = tokens.read(self, request, what.name)
        if token is None:
            self.message_user(request, TOO_OLD, messages.ERROR)
            return HttpResponseRedirect(request.get_full_path())
        form = what.form(request.POST)
        if not form.is_valid():
            return self._ask(request, targets, what, form)
        action = self._begin(request, targets, what, token, dict(form.cleaned_data))
        if action is None:
            self.message_user(request, "There is nothing left that this could be done to.", messages.WARNING)
            return HttpResponseRedirect(self._back(request))
        if not ended_soon(action):
            return HttpResponseRedirect(reverse("admin:queues_bulkaction_change", args=[action.pk]))
        self.message_user(request, f"{action.done} {what.done}.")
        for how, reasons in (("skipped", action.skipped), ("failed", action.failed)):
            for why, count in reasons.items():
                self.message_user(request, f"{count} {how}: {why}", messages.WARNING)
        if action.stopped:
            self.message_user(request, action.stopped, messages.WARNING)
        return HttpResponseRedirect(self._back(request))

    def _begin(
        self,
        request: HttpRequest,
        targets: QuerySet[Any],
        what: ControlAction,
        token: tokens.Token,
        given: dict[str, Any],
    ) -> BulkAction | None:
        """Freeze the targets; what came after the confirmation is not meant. None: there are none."""
        if targets.model is UserQueue:
            chosen = targets.order_by().annotate(queue_id=F("id"), seq=Value(0)).values_list("queue_id", "seq", "id")
        else:
            asked = datetime.fromtimestamp(token.asked, UTC) + timedelta(milliseconds=1)
            chosen = targets.filter(id__lt=first_id(asked)).order_by().values_list("queue_id", "seq", "id")
        reason, page = given.pop("reason"), self.opts.model_name
        row = (token.once, request.user.pk, page, what.name, reason, json.dumps(given))
        of_chosen(FREEZE, chosen[: MOST + 1], *row, MOST)
        return BulkAction.objects.defer("targets").filter(confirmation=token.once).first()

    def _ask(self, request: HttpRequest, targets: QuerySet[Any], what: ControlAction, form: Why) -> HttpResponse:
        whose = self._whose(targets, what.heads)
        total = sum(count for count, _ in whose.values())
        if not total:
            self.message_user(request, "There is nothing that this could be done to.", messages.WARNING)
            return HttpResponseRedirect(self._back(request))
        first = sorted(whose, key=lambda queue: (-whose[queue][0], -whose[queue][1]))[:USERS_NAMED]
        names = dict(UserQueue.objects.filter(id__in=first).values_list("id", "user__username"))
        context = {
            "total": min(total, MOST),
            "too_many": total > MOST,
            "targets": ("queue" if targets.model is UserQueue else "request") + ("" if total == 1 else "s"),
            "users": len(whose),
            "whose": [(names.get(queue, "-"), *whose[queue]) for queue in first],
            "left_out": len(whose) - len(first),
            "named": self._named(targets, what, total),
            "form": form,
            "away": self._back(request),
            "confirmed": tokens.issue(self, request, what.name),
        }
        return confirmation(self, request, what, "admin/queues/confirmation.html", context)

    def _named(self, targets: QuerySet[Any], what: ControlAction, total: int) -> list[Request]:
        """The requests that are touched, one by one, where they are few or each is somebody's blocking head."""
        if what.heads:
            return list(blocking(targets)[:USERS_NAMED])
        if targets.model is UserQueue or total > USERS_NAMED:
            return []
        return list(targets.order_by("queue_id", "seq").select_related("queue__user").defer("payload", "result"))

    def _whose(self, targets: QuerySet[Any], heads: bool = False) -> dict[int, tuple[int, int]]:
        """Of each user's queue, how many targets there are and how many requests without a final status.

        `heads`: how many requests of it are touched, which is the one that blocks it or none.
        """
        found = targets.order_by()
        if targets.model is UserQueue:
            blocked = Case(When(state=QueueState.BLOCKED, then=1), default=0)
            counters = found.annotate(waiting=blocked if heads else DEPTH).values_list("id", "waiting")[: MOST + 1]
            return {queue: (1, waiting) for queue, waiting in counters}
        rows = of_chosen(COUNT_BY_QUEUE, found.values_list("queue_id")[: MOST + 1])
        return {queue: (count, count) for queue, count in rows}

    def _back(self, request: HttpRequest) -> str:
        """To the page of the one row from which it was asked for, or to the list."""
        selected = request.POST.getlist(ACTION_CHECKBOX_NAME)
        if request.POST.get("back") and len(selected) == 1:
            return reverse(f"admin:queues_{self.opts.model_name}_change", args=selected)
        return request.get_full_path()

    def buttons(self, request: HttpRequest, row: Any) -> Iterable[tuple[str, str, str]]:
        """What this user may do to this row as it is: its name, a word for a button, what it means."""
        may = self.get_actions(request)
        return [
            (what.name, what.name.replace("_", " ").capitalize(), what.means)
            for what in self.controls
            if what.name in may and what.applies(row)
        ]

    def render_change_form(self, request: HttpRequest, context: dict[str, Any], *args: Any, **more: Any) -> Any:
        context = {**context, "buttons": self.buttons(request, more["obj"])}
        return super().render_change_form(request, context, *args, **more)


def blocking(targets: QuerySet[Any]) -> QuerySet[Request]:
    """Those of these requests, or of these queues' requests, that block their queue."""
    found: QuerySet[Request] = targets.order_by()
    if targets.model is UserQueue:
        found = Request.objects.filter(queue__in=targets.order_by().values("pk"))
    heads = found.filter(queue__state=QueueState.BLOCKED, seq=F("queue__done_seq") + 1, finished_at=None)
    return heads.select_related("queue__user").defer("payload", "result").order_by("queue_id")


def ended_soon(action: BulkAction) -> bool:
    """Wait for a moment; whether it is over. `action` is as it was last seen."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while action.finished_at is None and time.monotonic() < deadline:
        time.sleep(0.05)
        action.refresh_from_db(fields=["done", "skipped", "failed", "finished_at", "stopped"])
    return action.finished_at is not None
