"""Schedules for operators: seen and searched, paused, resumed and run; their owners write them."""

from collections.abc import Callable
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.models import CHANGE, LogEntry
from django.db.models import QuerySet
from django.http import HttpRequest

from accounts.models import User
from processing.schedules.due import run_now
from processing.schedules.models import Schedule
from project.admin.base import ReadOnlyAdmin
from project.rest.problems import Problem
from queues.exceptions import QueueFull, SessionOver

MOST_FOUND = 300
MOST_RUN = 100


@admin.register(Schedule)
class ScheduleAdmin(ReadOnlyAdmin):
    list_display = ("name", "user", "kind", "when", "state", "next_at", "last_error", "last_due_at")
    list_select_related = ("user",)
    list_filter = ("enabled",)
    search_fields = ("user__username",)  # shows the field; `get_search_results` searches
    search_help_text = "A user's id, e-mail address, name or its beginning."
    fields = readonly_fields = (
        "id", "name", "user", "kind", "version", "payload", "cron", "time_zone", "every_seconds", "missed", "enabled",
        "next_at", "look_at", "last_due_at", "last_request_id", "last_error", "created_at",
    )  # fmt: skip
    actions = ("pause", "resume", "run")

    def has_operate_permission(self, request: HttpRequest) -> bool:
        return bool(request.user.has_perm("schedules.operate_schedule"))

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        term = search_term.strip().replace("\0", "")
        return (queryset.filter(user__in=User.objects.meant_by(term, MOST_FOUND)) if term else queryset), False

    @admin.display
    def when(self, schedule: Schedule) -> str:
        if schedule.every_seconds is not None:
            return f"every {schedule.every_seconds} s"
        return f"{schedule.cron} {schedule.time_zone}"

    @admin.display(ordering="enabled")
    def state(self, schedule: Schedule) -> str:
        return "active" if schedule.enabled else "paused"

    @admin.action(description="Pause the selected schedules", permissions=["operate"])
    def pause(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        self._each(request, queryset, "paused", Schedule.pause)

    @admin.action(description="Resume the selected schedules", permissions=["operate"])
    def resume(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        self._each(request, queryset, "resumed", Schedule.resume)

    @admin.action(description="Submit the requests of the selected schedules now", permissions=["operate"])
    def run(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        self._each(request, queryset, "submitted", lambda schedule: bool(run_now(schedule)))

    def _each(self, request: HttpRequest, queryset: QuerySet[Any], done: str, verb: Callable[[Schedule], bool]) -> None:
        count = 0
        for schedule in queryset.order_by("look_at")[:MOST_RUN]:
            try:
                if verb(schedule):
                    count += 1
                    LogEntry.objects.log_actions(str(request.user.pk), [schedule], CHANGE, done, single_object=True)
            except (Problem, QueueFull, SessionOver, Schedule.DoesNotExist) as why:
                self.message_user(request, f"{schedule}: {why or type(why).__name__}", messages.WARNING)
        self.message_user(request, f"{count} schedules {done}.")
