"""Actions of the admin that change what runs: shown beforehand with how many and whose, done in bounded steps.

A step does at most STEP targets within STEP_SECONDS and keeps where it stopped in the page itself (signed), which goes
on by itself, or at a click where there are no scripts. So a selection of 100,000 holds no process up, and one that is
interrupted leaves done what was done. Each step is in the admin's log: who, what, why, how many.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog
from django import forms
from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.contenttypes.models import ContentType
from django.core import signing
from django.core.exceptions import EmptyResultSet
from django.db import connection
from django.db.models import Case, F, QuerySet, When
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse

from project.admin.base import FastAdmin
from queues.exceptions import NotPossible, QueueFull, SessionOver
from queues.models import Request, UserQueue
from queues.operations.selectors import DEPTH, first_id, in_line
from queues.states import QueueState

MOST = 100_000  # targets of one action
STEP, STEP_SECONDS = 500, 1.0
USERS_NAMED = 20
TOKEN_SECONDS = 86_400


class Why(forms.Form):
    """What every action asks for."""

    reason = forms.CharField(max_length=300, help_text="Kept in the log, with who does it and what.")


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
class Intervention:
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
        def run(page: "Steering", request: HttpRequest, queryset: QuerySet[Any]) -> HttpResponse:
            return page.steer(request, queryset, self)

        run.__name__ = self.name
        return run


@dataclass
class Progress:
    """How far an action is."""

    total: int
    asked: float
    begun: float = 0.0
    handled: int = 0
    done: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    last: list[Any] | None = None  # the place of the last target

    def allowed(self, given: Given) -> int:
        """How many more may be handled now."""
        left = self.total - self.handled
        most = given.values.get("most")
        if most:
            due = int((time.time() - self.begun) * most / int(given.values["per"])) + 1
            left = min(left, due - self.handled)
        return max(0, min(STEP, left))

    def wait(self, given: Given) -> int:
        """Milliseconds until the next step."""
        most = given.values.get("most")
        return min(5000, max(100, int(1000 * int(given.values["per"]) / most))) if most else 100


class Steering(FastAdmin):
    """Actions for who may; what is not possible is said and leaves the others alone."""

    interventions: tuple[Intervention, ...] = ()

    def has_operate_permission(self, request: HttpRequest) -> bool:
        return bool(request.user.has_perm(f"queues.operate_{self.opts.model_name}"))

    def steer(self, request: HttpRequest, chosen: QuerySet[Any], what: Intervention) -> HttpResponse:
        """Ask first; then do it, step by step."""
        targets = what.targets(chosen) if what.targets else chosen
        salt = f"{what.name} {self.opts.label} {request.user.pk}"
        token = request.POST.get("progress")
        if token is None:
            return self._ask(request, targets, what, salt, what.form())
        try:
            progress = Progress(**signing.loads(token, salt=salt, max_age=TOKEN_SECONDS))
        except signing.BadSignature:
            self.message_user(request, "This page was too old, or not yours. Nothing was done.", messages.ERROR)
            return HttpResponseRedirect(request.get_full_path())
        form = what.form(request.POST)
        if not form.is_valid():
            return self._ask(request, targets, what, salt, form)
        values = dict(form.cleaned_data)
        given = Given(request.user.get_username(), values.pop("reason"), values)
        progress.begun = progress.begun or time.time()
        over = self._step(request, targets, what, given, progress)
        if not over:
            return self._under_way(request, what, given, progress, signing.dumps(asdict(progress), salt=salt))
        self.message_user(request, f"{progress.done} {what.done}.")
        for why, count in progress.refused.items():
            self.message_user(request, f"{count} refused: {why}", messages.WARNING)
        return HttpResponseRedirect(self._back(request))

    def _ask(
        self, request: HttpRequest, targets: QuerySet[Any], what: Intervention, salt: str, form: Why
    ) -> HttpResponse:
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
            "progress": signing.dumps(asdict(Progress(total, time.time())), salt=salt),
        }
        return self._page(request, what, "admin/queues/confirmation.html", context)

    def _named(self, targets: QuerySet[Any], what: Intervention, total: int) -> list[Request]:
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
        try:
            chosen, values = found.values_list("queue_id")[: MOST + 1].query.sql_with_params()
        except EmptyResultSet:
            return {}
        with connection.cursor() as cursor:  # where PostgreSQL counts, not a hundred thousand rows come
            cursor.execute(f"SELECT queue_id, count(*) FROM ({chosen}) chosen GROUP BY queue_id", values)  # noqa: S608
            return {queue: (count, count) for queue, count in cursor.fetchall()}

    def _step(
        self, request: HttpRequest, targets: QuerySet[Any], what: Intervention, given: Given, progress: Progress
    ) -> bool:
        """Do the next ones; whether it is over."""
        deadline = time.monotonic() + STEP_SECONDS
        done = []
        allowed = progress.allowed(given)
        batch = self._following(targets, progress)[:allowed]
        by = f"{given.by}: {given.reason}"
        with structlog.contextvars.bound_contextvars(by=given.by, command=f"admin {what.name}", reason=given.reason):
            over = True
            for one in batch:
                if time.monotonic() > deadline:
                    over = False
                    break
                try:
                    what.verb(one.pk, Given(by, given.reason, given.values))
                    done.append(one)
                except (NotPossible, QueueFull) as why:
                    _count(progress.refused, str(why))
                except SessionOver:
                    _count(progress.refused, "Its user is not active.")
                except (Request.DoesNotExist, UserQueue.DoesNotExist):
                    _count(progress.refused, "It has just been erased.")
                progress.handled += 1
                progress.last = _place(one)
        progress.done += len(done)
        self._log(request, done, what, given, progress)
        if allowed and over and len(batch) < allowed:
            return True  # there were no more
        return progress.handled >= progress.total

    def _following(self, targets: QuerySet[Any], progress: Progress) -> QuerySet[Any]:
        """Those behind the last one, each user's in order; what came after the confirmation is not meant."""
        if targets.model is UserQueue:
            queues = targets.order_by("pk")
            return queues if progress.last is None else queues.filter(pk__gt=progress.last[0])
        asked = datetime.fromtimestamp(progress.asked, UTC) + timedelta(milliseconds=1)
        return in_line(targets.filter(id__lt=first_id(asked)), progress.last)

    def _log(self, request: HttpRequest, done: list[Any], what: Intervention, given: Given, progress: Progress) -> None:
        """Each row's history, and where there are several a line about all of them."""
        if not done:
            return
        told = f"{what.done}: {given.reason}"
        values = {name: value for name, value in given.values.items() if value is not None}
        if values:
            told += f" ({', '.join(f'{name} {value}' for name, value in values.items())})"
        refused, user = sum(progress.refused.values()), request.user.pk
        assert user is not None  # noqa: S101  (nobody else comes here)
        LogEntry.objects.log_actions(user, done, CHANGE, told)
        if len(done) > 1:
            LogEntry.objects.create(
                user_id=user,
                content_type=ContentType.objects.get_for_model(done[0]),
                action_flag=CHANGE,
                object_repr=f"{len(done)} {self.opts.verbose_name_plural}",
                change_message=f"{told}; {progress.handled} of {progress.total}, {refused} refused",
            )

    def _under_way(
        self, request: HttpRequest, what: Intervention, given: Given, progress: Progress, token: str
    ) -> HttpResponse:
        kept = {"reason": given.reason, **{k: v for k, v in given.values.items() if v is not None}, "progress": token}
        context = {"state": progress, "kept": kept, "wait": progress.wait(given)}
        return self._page(request, what, "admin/queues/under_way.html", context)

    def _page(self, request: HttpRequest, what: Intervention, template: str, context: dict[str, Any]) -> HttpResponse:
        shared = {
            **self.admin_site.each_context(request),
            "title": what.label,
            "what": what,
            "opts": self.opts,
            "media": self.media,
            "selected": request.POST.getlist(ACTION_CHECKBOX_NAME),
            "checkbox": ACTION_CHECKBOX_NAME,
            "select_across": request.POST.get("select_across") == "1",
            "back": request.POST.get("back", ""),
            "away": self._back(request),
        }
        request.current_app = self.admin_site.name
        return TemplateResponse(request, template, {**shared, **context})

    def _back(self, request: HttpRequest) -> str:
        """To the page of the one row from which it was asked for, or to the list."""
        selected = request.POST.getlist(ACTION_CHECKBOX_NAME)
        if request.POST.get("back") and len(selected) == 1:
            return reverse(f"admin:queues_{self.opts.model_name}_change", args=selected)
        return request.get_full_path()

    def steers(self, request: HttpRequest, row: Any) -> Iterable[tuple[str, str, str]]:
        """What this user may do to this row as it is: its name, a word for a button, what it means."""
        may = self.get_actions(request)
        return [
            (what.name, what.name.replace("_", " ").capitalize(), what.means)
            for what in self.interventions
            if what.name in may and what.applies(row)
        ]

    def render_change_form(self, request: HttpRequest, context: dict[str, Any], *args: Any, **more: Any) -> Any:
        context = {**context, "steers": self.steers(request, more["obj"])}
        return super().render_change_form(request, context, *args, **more)


def blocking(targets: QuerySet[Any]) -> QuerySet[Request]:
    """Those of these requests, or of these queues' requests, that block their queue."""
    found: QuerySet[Request] = targets.order_by()
    if targets.model is UserQueue:
        found = Request.objects.filter(queue__in=targets.order_by().values("pk"))
    heads = found.filter(queue__state=QueueState.BLOCKED, seq=F("queue__done_seq") + 1, finished_at=None)
    return heads.select_related("queue__user").defer("payload", "result").order_by("queue_id")


def _place(one: Any) -> list[Any]:
    return [one.pk] if isinstance(one, UserQueue) else [one.queue_id, one.seq, str(one.pk)]


def _count(refused: dict[str, int], why: str) -> None:
    """By reason; the first ones by themselves, and then all others together."""
    key = why if why in refused or len(refused) < 20 else "other reasons"
    refused[key] = refused.get(key, 0) + 1
