"""manage.py requests: find, show, retry, cancel and forget requests."""

from datetime import timedelta
from typing import Any

from django.core.management.base import CommandParser
from django.utils import timezone

from queues.lifecycle import control
from queues.management.command_base import OperatorCommand, counted, positive, span
from queues.models import Request
from queues.operations.retention import Retention, old, prune
from queues.operations.selectors import find_queue, find_request, having
from queues.representation.shape import as_text, attempts, one
from queues.states import FINAL, Status

NAMED = ("request", "user", "kind")
COLUMNS = ("request", "queue", "user", "sequence", "kind", "status", "attempt", "created_at", "finished_at")


class Command(OperatorCommand):
    help = "List requests, show, retry or cancel some, and forget old ones."
    name = "requests"

    def add_arguments(self, parser: CommandParser) -> None:
        verbs = self.verbs(parser)
        command = self.looks(verbs.add_parser("list", help="The newest requests; payloads are not shown."))
        command.add_argument("--queue", help="Of this queue: its number, or its user's id or name.")
        command.add_argument("--status", choices=Status.values)
        command.add_argument("--kind")
        command.add_argument("--since", type=span, help="Accepted within 90s, 15m, 24h, 30d, 2w ..")
        command.add_argument("--limit", type=positive, default=50)

        command = self.looks(verbs.add_parser("show", help="One request as its owner sees it, and its attempts."))
        command.add_argument("request", help="Its id.")
        command.add_argument("--payload", action="store_true", help="Its payload and result, too.")

        for verb, about in (
            ("retry", "What is final: as new requests at the tail. The head of a blocked queue: the same once more."),
            ("cancel", "What waits: at once. What runs: its handler is asked."),
        ):
            command = self.changes(verbs.add_parser(verb, help=about))
            command.add_argument("request", nargs="+", help="Ids.")

        command = self.changes(verbs.add_parser("prune", help="Delete what has been final for long, oldest first."))
        command.add_argument("--older-than", type=span, required=True, help="Final for 30d, 12w ..")
        command.add_argument(
            "--status",
            choices=[str(status) for status in FINAL],
            action="append",
            help="Default: all but failed, the dead letters. May be given more than once.",
        )

    def handle_list(
        self,
        queue: str | None,
        status: str | None,
        kind: str | None,
        since: timedelta | None,
        limit: int,
        **_: Any,
    ) -> None:
        found = Request.objects.select_related("queue__user").defer("payload", "result", "error")
        if queue:
            found = found.filter(queue=find_queue(queue))
        if status:
            found = having(found, Status(status))
        if kind:
            found = found.filter(kind=kind)
        if since:
            found = found.filter(created_at__gte=timezone.now() - since)
        self.table(COLUMNS, [row(request) for request in found.order_by("-id")[:limit]])

    def handle_show(self, request: str, payload: bool, **_: Any) -> None:
        found = as_text(Request.objects.select_related("queue__user")).get(id=find_request(request).id)
        about = one(found) | {"queue": found.queue_id, "user": found.queue.user.username, "request_id": found.trace}
        if not payload:
            del about["payload"], about["result"]
        tried = attempts(found, found.attempts.all())
        if self.as_json:
            self.document(about | {"attempts": tried})
            return
        self.fields(about)
        if tried:
            self.stdout.write("")
            self.table([*tried[0]], tried)

    def handle_retry(self, request: list[str], **_: Any) -> None:
        self._control("retry", request, control.retry, "tried again")

    def handle_cancel(self, request: list[str], **_: Any) -> None:
        self._control("cancel", request, control.cancel, "cancelled, or asked to stop")

    def _control(self, verb: str, texts: list[str], do: Any, done: str) -> None:
        chosen = [find_request(text) for text in texts]
        if not self.confirm(f"{verb} {counted(len(chosen), 'request')}"):
            self.table(COLUMNS, [row(request) for request in chosen])
            return
        with self.recorded(verb, *texts) as action:
            self.each(action, chosen, len(chosen), lambda request: do(request.id), done, NAMED, _named)

    def handle_prune(self, older_than: timedelta, status: list[str] | None, **_: Any) -> None:
        statuses = [Status(name) for name in status] if status else [s for s in FINAL if s != Status.FAILED]
        retention = Retention(timezone.now() - older_than, statuses)
        what = f"delete requests that ended before {retention.before:%Y-%m-%d %H:%M:%S}: {', '.join(statuses)}"
        deleted = 0
        if not self.confirm(what):
            found = sum(map(len, old(retention, self.batch_size)))
            self.fields({"would_delete": found, "before": retention.before})
            return
        with self.recorded("prune", *statuses, f"before {retention.before.isoformat()}") as action:
            for count in prune(retention, self.batch_size):
                deleted += count
                action.outcome = f"{deleted} deleted"
                self.progress(action.outcome)
        self.fields({"deleted": deleted, "before": retention.before})


def row(request: Request) -> dict[str, Any]:
    return {
        "request": request.id,
        "queue": request.queue_id,
        "user": request.queue.user.username,
        "sequence": request.seq,
        "kind": request.kind,
        "status": request.status_now.value,
        "attempt": request.attempt_now,
        "created_at": request.created_at,
        "finished_at": request.finished_at,
    }


def _named(request: Request) -> dict[str, Any]:
    return {"request": request.id, "user": request.queue.user.username, "kind": request.kind}
