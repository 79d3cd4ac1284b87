"""Schedules for operators: seen and searched, paused, resumed and run; their owners write them."""

from collections.abc import Callable
from typing import Any

from django.contrib import admin, messages
from django.db.models import Q, QuerySet
from django.http import HttpRequest

from accounts.admin import FoundByUser
from processing.schedules.due import run_now
from processing.schedules.models import Schedule
from project.admin.base import ReadOnlyAdmin
from project.admin.confirming import confirmed
from project.rest.problems import Problem
from queues.exceptions import QueueFull, SessionOver

MOST = 100  # in one request, each with its line in the log


def _when(schedule: Schedule) -> str:
    if schedule.every_seconds is not None:
        return f"every {schedule.every_seconds} s"
    return f"{schedule.cron} {schedule.time_zone}"


def _named(schedule: Schedule) -> str:
    return f"{schedule.name} of {schedule.user}: {schedule.kind}, {_when(schedule)}"


@admin.register(Schedule)
class ScheduleAdmin(FoundByUser, ReadOnlyAdmin):
    list_display = ("name", "user", "kind", "when", "state", "next_at", "last_error", "last_due_at")
    list_select_related = ("user",)
    list_filter = ("enabled",)
    search_fields = ("user__username",)
    fields = readonly_fields = (
        "id", "name", "user", "kind", "version", "payload", "cron", "time_zone", "every_seconds", "missed", "enabled",
        "next_at", "look_at", "last_due_at", "last_request_id", "last_error", "created_at",
    )  # fmt: skip
    actions = ("pause", "resume", "run")

    def has_operate_permission(self, request: HttpRequest) -> bool:
        return bool(request.user.has_perm("schedules.operate_schedule"))

    @admin.display
    def when(self, schedule: Schedule) -> str:
        return _when(schedule)

    @admin.display(ordering="enabled")
    def state(self, schedule: Schedule) -> str:
        return "active" if schedule.enabled else "paused"

    @confirmed(
        "Pause the selected schedules",
        "They submit nothing until they are resumed, by you or by their users. What they submitted goes on.",
        "operate",
        only=Q(enabled=True),
        most=MOST,
        named=_named,
    )
    def pause(self, request: HttpRequest, chosen: QuerySet[Any], reason: str) -> None:
        self._each(request, chosen, "paused", reason, Schedule.pause)

    @confirmed(
        "Resume the selected schedules",
        "They are due again from now on. Nothing is submitted for the time in which they were paused.",
        "operate",
        only=Q(enabled=False),
        most=MOST,
        named=_named,
    )
    def resume(self, request: HttpRequest, chosen: QuerySet[Any], reason: str) -> None:
        self._each(request, chosen, "resumed", reason, Schedule.resume)

    @confirmed(
        "Submit the requests of the selected schedules now",
        "One request of each goes to the end of its user's queue, at once. Due times stay as they are.",
        "operate",
        most=MOST,
        named=_named,
    )
    def run(self, request: HttpRequest, chosen: QuerySet[Any], reason: str) -> None:
        self._each(request, chosen, "submitted", reason, lambda schedule: bool(run_now(schedule)))

    def _each(
        self, request: HttpRequest, chosen: QuerySet[Any], done: str, reason: str, verb: Callable[[Schedule], bool]
    ) -> None:
        count = 0
        for schedule in chosen.order_by("look_at"):
            try:
                if verb(schedule):
                    count += 1
                    self.log_change(request, schedule, f"{done}: {reason}")
            except (Problem, QueueFull, SessionOver, Schedule.DoesNotExist) as why:
                self.message_user(request, f"{schedule}: {why or type(why).__name__}", messages.WARNING)
        self.message_user(request, f"{count} {done}.")
