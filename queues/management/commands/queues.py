"""manage.py queues: how the users' queues are."""

import itertools
import sys
import time
from contextlib import nullcontext, suppress
from typing import Any

from django.core.management.base import CommandParser
from rich.live import Live
from rich.table import Table

from queues.management.command_base import OperatorCommand, as_text, positive, seconds
from queues.models import Request, UserQueue
from queues.operations import backlog
from queues.operations.selectors import COLUMNS, ORDERS, busy, described, find_queue, with_oldest
from queues.states import QueueState

NEXT_REQUESTS = 10


class Command(OperatorCommand):
    help = "List the queues that are not at rest, show one, or watch the worst of them live."
    name = "queues"

    def add_arguments(self, parser: CommandParser) -> None:
        verbs = self.verbs(parser)
        for verb, about in (("list", "The queues that are not at rest."), ("top", "The same, live, until Ctrl-C.")):
            command = self.looks(verbs.add_parser(verb, help=about))
            command.add_argument("--sort", choices=[*ORDERS], default="depth", help="Worst first. Default: depth.")
            command.add_argument("--state", choices=QueueState.values, action="append", default=[])
            command.add_argument("--paused", action="store_true", default=None, help="Only paused ones.")
            command.add_argument("--limit", type=positive, default=50 if verb == "list" else 20)
            if verb == "top":
                command.add_argument("--interval", type=seconds, default=2.0, help="Seconds between looks. Default: 2.")
                command.add_argument("--times", type=positive, help="Looks until it ends. Default: no end.")
        command = self.looks(verbs.add_parser("show", help="One queue, and what is next in it."))
        command.add_argument("queue", help="Its number, or its user's id or name.")

    def handle_list(self, **options: Any) -> None:
        self.table(COLUMNS, rows(**options))

    def handle_show(self, queue: str, **_: Any) -> None:
        found = with_oldest(UserQueue.objects.select_related("user")).get(id=find_queue(queue).pk)
        waiting = Request.objects.filter(queue=found, seq__gt=found.done_seq, finished_at=None).order_by("seq")
        following = [
            {
                "request": request.id,
                "sequence": request.seq,
                "kind": request.kind,
                "status": request.status_now.value,
                "attempt": request.attempt_now,
                "created_at": request.created_at,
            }
            for request in waiting.select_related("queue").defer("payload", "result", "error")[:NEXT_REQUESTS]
        ]
        about = described([found])[0] | {
            "user_id": found.user_id,
            "state_since": found.state_since,
            "paused_at": found.paused_at,
            "paused_by": found.paused_by,
            "resumed_by": ("operator" if found.operator_paused else "owner or operator") if found.paused else None,
            "limit": found.limit,
            "last_seq": found.last_seq,
            "published_seq": found.published_seq,
            "done_seq": found.done_seq,
            "given_up_ahead": found.given_up_ahead,
            "wake_at": found.wake_at,
            "lease_until": found.lease_until if found.state == QueueState.DRAINING else None,
        }
        if self.as_json:
            self.document(about | {"next": following})
            return
        self.fields(about)
        if following:
            self.stdout.write("")
            self.table([*following[0]], following)

    def handle_top(self, interval: float, times: int | None, **options: Any) -> None:
        live = not self.as_json and sys.stdout.isatty()
        with Live(screen=True, auto_refresh=False) if live else nullcontext() as screen, suppress(KeyboardInterrupt):
            for look in itertools.count(1):
                found, totals = rows(**options), summary()
                if screen is not None:
                    screen.update(_picture(found, totals), refresh=True)
                elif self.as_json:
                    self.document({**totals, "queues": found})
                else:
                    self.stdout.write("  ".join(f"{name}={as_text(value)}" for name, value in totals.items()))
                    self.table(COLUMNS, found)
                if look == times:
                    return
                time.sleep(interval)


def rows(sort: str, state: list[str], limit: int, paused: bool | None, **_: Any) -> list[dict[str, Any]]:
    found = with_oldest(busy(state, paused)).order_by(ORDERS[sort], "id")  # type: ignore[index]
    return described(list(found[:limit]))


def summary() -> dict[str, Any]:
    """All queues in a line."""
    found = backlog.measure()
    return {
        "depth": found.depth,
        "deepest": found.deepest,
        "oldest_waiting_seconds": found.oldest_waiting(lambda group: not group.paused),
        **{state.value: found.queues(state) for state in QueueState if state != QueueState.IDLE},
        "paused": found.paused,
    }


def _picture(found: list[dict[str, Any]], totals: dict[str, Any]) -> Table:
    table = Table(*(column.replace("_", " ") for column in COLUMNS), box=None)
    table.title = "  ".join(f"{name.replace('_', ' ')} {as_text(value)}" for name, value in totals.items())
    for row in found:
        table.add_row(*(as_text(row[column]) for column in COLUMNS))
    return table
