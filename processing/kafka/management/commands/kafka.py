"""manage.py kafka rejected: list and replay the messages that no request could be made of."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandParser

from processing.kafka.models import RejectedMessage
from processing.kafka.rejected import replay
from queues.exceptions import NoSuch
from queues.management.command_base import OperatorCommand, positive

COLUMNS = (
    "id",
    "topic",
    "partition",
    "offset",
    "event_id",
    "reason",
    "detail",
    "rejected_at",
    "replayed_at",
    "request_id",
)
SHOWN = ("id", "topic", "partition", "offset")


class Command(OperatorCommand):
    help = "List the messages of Kafka that were rejected, and replay some."
    name = "kafka"

    def add_arguments(self, parser: CommandParser) -> None:
        rejected = self.verbs(parser).add_parser("rejected", help="Messages that no request could be made of.")
        verbs = rejected.add_subparsers(dest="action", required=True, metavar="VERB")

        command = self.looks(
            verbs.add_parser("list", help="Those that were not replayed, as they lie in their partitions.")
        )
        self._choice(command)
        command.add_argument("--all", action="store_true", help="Also those that were replayed.")
        command.add_argument("--limit", type=positive, default=50)

        command = self.changes(
            verbs.add_parser("replay", help="Make their requests, in the order of their partitions.")
        )
        command.add_argument("id", nargs="*", type=positive, help="As list shows it; without: all that are chosen.")
        self._choice(command)

    def _choice(self, parser: ArgumentParser) -> None:
        parser.add_argument("--topic", help="Of this topic.")
        parser.add_argument("--rejected-for", metavar="REASON", help="unknown_user, invalid .., as list shows it.")

    def run_verb(self, verb: str, **options: Any) -> None:
        found = RejectedMessage.objects.order_by("topic", "partition", "offset", "id").defer("key", "value", "headers")
        if options["topic"]:
            found = found.filter(topic=options["topic"])
        if options["rejected_for"]:
            found = found.filter(reason=options["rejected_for"])
        if not options.get("all"):
            found = found.filter(replayed_at=None)
        if options["action"] == "list":
            self.table(COLUMNS, [{name: getattr(row, name) for name in COLUMNS} for row in found[: options["limit"]]])
        else:
            self._replay(found, options["id"])

    def _replay(self, found: Any, ids: list[int]) -> None:
        if ids:
            found = found.filter(id__in=ids)
            if missing := set(ids) - set(found.values_list("id", flat=True)):
                raise NoSuch(f"There is no rejected message {', '.join(map(str, sorted(missing)))} to replay.")
        count = found.count()
        if not count or not self.confirm(f"replay {count} messages"):
            return
        with self.recorded("rejected", "replay", *ids) as action:
            self.each(
                action, found.iterator(), count, lambda row: replay(row.id), "replayed", SHOWN,
                lambda row: {name: getattr(row, name) for name in SHOWN},
            )  # fmt: skip
