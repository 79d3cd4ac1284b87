"""manage.py queue: control users' queues."""

from collections.abc import Callable, Iterable
from functools import partial
from itertools import islice
from typing import Any

from django.core.management.base import CommandParser
from django.db.models import Count, Sum

from queues.lifecycle import control
from queues.management.command_base import OperatorCommand, as_text, batches, counted
from queues.models import UserQueue
from queues.operations.selectors import DEPTH, busy, by_key, find_queue
from queues.states import QueueState

VERBS: dict[str, tuple[Callable[[int], object], str, str]] = {
    "pause": (control.pause, "paused", "Start nothing further; what runs ends. Its owner cannot resume it."),
    "resume": (partial(control.resume, operator=True), "resumed", "Go on where it stopped."),
    "purge": (control.purge, "purged", "Cancel all that waits; the one that runs goes on."),
    "republish": (control.republish, "republished", "Bring all that waits to RabbitMQ again."),
    "skip": (control.skip_head, "skipped", "Give up the request that blocks the queue, as failed."),
}


Chosen = tuple[Iterable[UserQueue], int, int]  # queues, how many they are, and how many requests wait in them
COLUMNS = ("queue", "user", "depth")


class Command(OperatorCommand):
    help = "Pause, resume, purge, republish queues, or skip the request that blocks one."
    name = "queue"

    def add_arguments(self, parser: CommandParser) -> None:
        verbs = self.verbs(parser)
        for verb, (_, _, about) in VERBS.items():
            command = self.changes(verbs.add_parser(verb, help=about))
            command.add_argument("queue", nargs="*", help="Numbers of queues, or ids or names of users.")
            command.add_argument("--state", choices=QueueState.values, help="Instead: all queues in this state.")

    def run_verb(self, verb: str, queue: list[str], state: str | None, **_: Any) -> None:  # type: ignore[override]
        if bool(queue) == bool(state):
            self.wrong("Name queues, or give --state.")
        chosen, total, waiting = self._named(queue) if queue else self._in_state(state or "")
        do, done, _about = VERBS[verb]
        asked = f"{verb} {counted(total, 'queue')} with {counted(waiting, 'request')}"
        if queue:
            asked += f", of {', '.join(as_text(one.user.username) for one in chosen)}"
        if not total or not self.confirm(asked):
            self.pages(COLUMNS, batches(map(row, chosen), self.batch_size) if total else [[]])
            return
        with self.recorded(verb, *(queue or [f"--state={state}"])) as action:
            if verb == "pause":
                do = partial(control.pause, operator=": ".join(filter(None, (action.by, action.reason))))
            self.each(action, chosen, total, lambda one: do(one.pk), done, COLUMNS, row)

    def _named(self, texts: list[str]) -> Chosen:
        found = [find_queue(text) for text in texts]
        return found, len(found), sum(one.depth for one in found)

    def _in_state(self, state: str) -> Chosen:
        """Each as it is its turn: one that has left the state meanwhile is not meant any more."""
        found = busy([state])
        told = found.aggregate(queues=Count("id"), waiting=Sum(DEPTH, default=0))
        return islice(by_key(found, "id", self.batch_size), told["queues"]), told["queues"], told["waiting"]


def row(queue: UserQueue) -> dict[str, Any]:
    return {"queue": queue.pk, "user": queue.user.username, "depth": queue.depth}
