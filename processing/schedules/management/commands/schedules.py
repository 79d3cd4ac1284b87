"""manage.py schedules: list, add, pause, resume, run and remove users' schedules."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

from django.core.management.base import CommandError, CommandParser

from processing.schedules import writing
from processing.schedules.due import run_now
from processing.schedules.models import Missed, Schedule
from project.rest.parsers import loads
from project.rest.problems import Problem
from queues.exceptions import NoSuch, QueueFull, SessionOver
from queues.management.command_base import Exit, OperatorCommand, positive
from queues.operations.selectors import find_user

COLUMNS = ("schedule", "user", "name", "kind", "when", "enabled", "next_at", "last_due_at", "last_error")


class Command(OperatorCommand):
    help = "List users' schedules, add one, pause, resume, run or remove some."
    name = "schedules"

    def add_arguments(self, parser: CommandParser) -> None:
        verbs = self.verbs(parser)
        command = self.looks(verbs.add_parser("list", help="What is due next comes first."))
        command.add_argument("--user", help="Of this user: id or name.")
        command.add_argument("--limit", type=positive, default=50)

        command = self.looks(verbs.add_parser("add", help="Have a request submitted at set times."))
        command.add_argument("user", help="Whose: id or name.")
        command.add_argument("name")
        command.add_argument("kind")
        command.add_argument("payload", help="JSON.")
        command.add_argument("--kind-version", type=positive, help="Default: the newest when it is due.")
        command.add_argument("--cron", help="Five fields, such as '30 6 * * MON-FRI'.")
        command.add_argument("--time-zone", default="UTC", help="Of --cron, such as Europe/Berlin.")
        command.add_argument("--every", type=positive, help="Seconds, instead of --cron.")
        command.add_argument("--missed", choices=Missed.values, default=Missed.ONE.value)

        for verb, about in (
            ("pause", "Have them due no more."),
            ("resume", "Have them due again from now on."),
            ("run-now", "Submit their requests now."),
            ("remove", "Remove them; what they submitted stays."),
        ):
            command = self.changes(verbs.add_parser(verb, help=about))
            command.add_argument("schedule", nargs="+", help="Ids.")

    def run_verb(self, verb: str, **options: Any) -> None:
        if verb == "list":
            self._list(options["user"], options["limit"])
        elif verb == "add":
            self._add(options)
        else:
            self._change(verb, options["schedule"])

    def _list(self, user: str | None, limit: int) -> None:
        found = Schedule.objects.select_related("user").defer("payload").order_by("look_at", "id")
        if user is not None:
            found = found.filter(user=find_user(user))
        self.table(COLUMNS, [row(schedule) for schedule in found[:limit]])

    def _add(self, options: dict[str, Any]) -> None:
        user = find_user(options["user"])
        fields = {
            "name": options["name"],
            "kind": options["kind"],
            "version": options["kind_version"],
            "cron": options["cron"],
            "time_zone": options["time_zone"],
            "every_seconds": options["every"],
            "missed": options["missed"],
        }
        try:
            loads(options["payload"].encode())
            with self.recorded("add", user.username, options["name"], options["kind"]) as action:
                made = writing.add(user.id, options["payload"], fields)
                action.outcome = str(made.id)
        except Problem as wrong:
            told = "; ".join(f"{error.field or 'payload'}: {error.detail}" for error in wrong.errors)
            raise CommandError(told or str(wrong), returncode=Exit.REFUSED) from None
        self.table(COLUMNS, [row(Schedule.objects.select_related("user").get(id=made.id))])

    def _change(self, verb: str, texts: list[str]) -> None:
        found = [find_schedule(text) for text in texts]
        do, done = VERBS[verb]
        if not self.confirm(f"{verb} {', '.join(map(str, found))}"):
            return
        refused = 0
        rows = []
        with self.recorded(verb, *texts) as action:
            for schedule in found:
                try:
                    do(schedule)
                    said = done
                except (Problem, QueueFull, SessionOver, Schedule.DoesNotExist) as why:
                    refused += 1
                    said = f"refused: {why}"
                rows.append({**row(schedule), "result": said})
            action.outcome = f"{len(found) - refused} {done}, {refused} refused"
        self.table(("schedule", "user", "name", "result"), rows)
        if refused:
            raise CommandError(action.outcome, returncode=Exit.REFUSED)


VERBS: dict[str, tuple[Callable[[Schedule], object], str]] = {
    "pause": (Schedule.pause, "paused"),
    "resume": (Schedule.resume, "resumed"),
    "run-now": (run_now, "submitted"),
    "remove": (lambda schedule: schedule.delete(), "removed"),
}


def find_schedule(text: str) -> Schedule:
    """The schedule of this id. Raises NoSuch."""
    try:
        found = Schedule.objects.select_related("user").filter(id=UUID(text)).first()
    except ValueError:
        found = None
    if found is None:
        raise NoSuch(f"There is no schedule {text!r}.")
    return found


def row(schedule: Schedule) -> dict[str, Any]:
    every = schedule.every_seconds
    return {
        "schedule": schedule.id,
        "user": schedule.user.username,
        "name": schedule.name,
        "kind": schedule.kind,
        "when": f"every {every} s" if every is not None else f"{schedule.cron} {schedule.time_zone}",
        "enabled": schedule.enabled,
        "next_at": schedule.next_at,
        "last_due_at": schedule.last_due_at,
        "last_error": schedule.last_error,
    }
