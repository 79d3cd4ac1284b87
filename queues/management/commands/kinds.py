"""manage.py kinds: what this code can do, and what waits for a kind or version that it cannot."""

from typing import Any

from django.core.management.base import CommandError, CommandParser

from queues import kinds
from queues.management.command_base import Exit, OperatorCommand, counted
from queues.operations.kinds_in_use import all_uses, waiting

COLUMNS = ("kind", "version", "newest", "offered", "permission", "max_attempts", "time_limit", "on_failure", "waiting")
USED = ("kind", "version", "what", "count", "users", "oldest")


class Command(OperatorCommand):
    help = "List the kinds that this code has, or check that it has all that something waits for."
    name = "kinds"

    def add_arguments(self, parser: CommandParser) -> None:
        verbs = self.verbs(parser)
        self.looks(
            verbs.add_parser("list", help="Every kind and version, and how many requests wait, scheduled ones too.")
        )
        self.looks(
            verbs.add_parser("check", help="What waits for a kind or version without a handler here: exit status 5.")
        )

    def handle_list(self, **_: Any) -> None:
        waits = waiting()
        self.table(
            COLUMNS,
            [
                {
                    "kind": kind.name,
                    "version": kind.version,
                    "newest": kinds.find(kind.name) == kind,
                    "offered": kinds.is_offered(kind.name),
                    "permission": permission_of(kind),
                    "max_attempts": kind.max_attempts,
                    "time_limit": kind.time_limit,
                    "on_failure": kind.on_failure.value,
                    "waiting": waits.get((kind.name, kind.version), 0),
                }
                for kind in kinds.all_kinds()
            ],
        )

    def handle_check(self, **_: Any) -> None:
        missing = [use for use in all_uses() if not use.has_handler]
        self.table(USED, [{name: getattr(use, name) for name in USED} for use in missing])
        if missing:
            told = " and ".join(counted(use.count, use.what.removesuffix("s")) for use in missing[:3])
            more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
            raise CommandError(f"{told}{more} would have no handler with this code.", returncode=Exit.FAULTS)


def permission_of(kind: kinds.Kind) -> str | None:
    """Who may ask for it, in a word."""
    if kind.permission is None or isinstance(kind.permission, str):
        return kind.permission
    return getattr(kind.permission, "__qualname__", "a function")
