"""manage.py queue: steer users' queues."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from queues import interventions
from queues.looking import busy, find_queue
from queues.management.operating import OperatorCommand, counted
from queues.models import UserQueue
from queues.states import QueueState

VERBS: dict[str, tuple[Callable[[int], object], str, str]] = {
    "pause": (interventions.pause, "paused", "Start no further request; the one that runs ends."),
    "resume": (interventions.resume, "resumed", "Go on where it stopped."),
    "purge": (interventions.purge, "purged", "Cancel all that waits; the one that runs goes on."),
    "republish": (interventions.republish, "republished", "Bring all that waits to RabbitMQ again."),
    "skip": (interventions.skip_head, "skipped", "Give up the request that blocks the queue, as failed."),
}


class Command(OperatorCommand):
    help = "Pause, resume, purge, republish queues, or skip the request that blocks one."
    name = "queue"

    def add_verbs(self, verbs: Any) -> None:
        for verb, (_, _, about) in VERBS.items():
            parser = self.changes(verbs.add_parser(verb, help=about))
            parser.add_argument("queue", nargs="*", help="Numbers of queues, or ids or names of users.")
            parser.add_argument("--state", choices=QueueState.values, help="Instead: all queues in this state.")

    def run_verb(self, verb: str, queue: list[str], state: str | None, **_: Any) -> None:  # type: ignore[override]
        if bool(queue) == bool(state):
            self.wrong("Name queues, or give --state.")
        chosen = [find_queue(text) for text in queue] if queue else list(self._in_state(state))
        do, done, _about = VERBS[verb]
        waiting = sum(one.depth for one in chosen)
        if not chosen or not self.confirm(f"{verb} {counted(len(chosen), 'queue')} with {counted(waiting, 'request')}"):
            self.table(["queue", "user", "depth"], [_named(one) for one in chosen])
            return
        with self.recorded(verb, *(queue or [f"--state={state}"])) as action:
            if verb == "pause":
                do = partial(interventions.pause, by=": ".join(filter(None, (action.by, action.reason))))
            self.each(action, chosen, lambda one: do(one.pk), done, _named)

    def _in_state(self, state: str | None) -> Iterator[UserQueue]:
        return busy([state or ""]).order_by("id").iterator(self.batch_size)


def _named(queue: UserQueue) -> dict[str, Any]:
    return {"queue": queue.pk, "user": queue.user.username, "depth": queue.depth}
