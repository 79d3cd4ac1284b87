"""manage.py failed: the dead letters."""

import os
from argparse import ArgumentParser
from collections.abc import Iterator
from datetime import timedelta
from itertools import chain, islice, repeat
from pathlib import Path
from time import sleep
from typing import Any

import orjson
from django.core.management.base import CommandParser
from django.db.models import QuerySet
from django.utils import timezone

from queues.lifecycle import control
from queues.management.command_base import OperatorCommand, counted, positive, span
from queues.operations.dead_letters import Chosen, failed, ids_in_order, not_retried, summary
from queues.operations.selectors import find_queue
from queues.representation.shape import as_text, attempts, one


class Command(OperatorCommand):
    help = "What failed: count it by its error, try it again, or write it to a file."
    name = "failed"

    def add_arguments(self, parser: CommandParser) -> None:
        verbs = self.verbs(parser)
        self._choosing(self.looks(verbs.add_parser("summary", help="How many of each kind, with which error.")))

        command = verbs.add_parser(
            "retry", help="Once more, at the tail, each user's in order; what was retried is left."
        )
        self._choosing(self.changes(command))
        command.add_argument(
            "--per-minute", type=positive, help="So many requests a minute. Default: as fast as it goes."
        )
        command.add_argument("--limit", type=positive, help="So many at the most.")

        command = verbs.add_parser("export", help="A JSON object a line, with attempts and payload.")
        self._choosing(self.looks(command))
        command.add_argument("--output", type=Path, help="A new file. Default: stdout.")
        command.add_argument("--batch-size", type=positive, default=500)

    def _choosing(self, parser: ArgumentParser) -> None:
        parser.add_argument("--kind")
        parser.add_argument("--queue", help="Of this queue: its number, or its user's id or name.")
        parser.add_argument("--since", type=span, help="Failed within 90s, 15m, 24h, 30d, 2w ..")

    def _chosen(self, kind: str | None, queue: str | None, since: timedelta | None) -> Chosen:
        return Chosen(kind, find_queue(queue) if queue else None, timezone.now() - since if since else None)

    def handle_summary(self, kind: str | None, queue: str | None, since: timedelta | None, **_: Any) -> None:
        columns = ("kind", "error_type", "requests", "queues", "first", "last")
        self.table(columns, summary(self._chosen(kind, queue, since)))

    def handle_retry(
        self,
        kind: str | None,
        queue: str | None,
        since: timedelta | None,
        per_minute: int | None,
        limit: int | None,
        **_: Any,
    ) -> None:
        chosen = self._chosen(kind, queue, since)
        count = not_retried(chosen).count()
        count = count if limit is None else min(count, limit)
        if not count or not self.confirm(f"try {counted(count, 'failed request')} again"):
            self.fields({"would_retry": count})
            return
        words = (f"--kind={kind}" if kind else "", f"--queue={queue}" if queue else "", f"{count} requests")
        with self.recorded("retry", *filter(None, words)) as action:
            ids = islice(ids_in_order(chosen, self.batch_size), count)
            pauses = chain([0.0], repeat(60 / per_minute if per_minute else 0.0))

            def again(request_id: Any) -> None:
                sleep(next(pauses))
                control.retry_once(request_id)

            self.each(action, ids, count, again, "tried again", ["request"], lambda id_: {"request": id_})

    def handle_export(
        self, kind: str | None, queue: str | None, since: timedelta | None, output: Path | None, **_: Any
    ) -> None:
        found = as_text(failed(self._chosen(kind, queue, since)).select_related("queue__user").order_by("id"))
        if output is None:
            count = sum(self.stdout.write(line) or 1 for line in lines(found, self.batch_size))
        else:
            try:
                # Payloads are for the operator's eyes alone.
                descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
                with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                    count = sum(bool(file.write(line + "\n")) for line in lines(found, self.batch_size))
            except OSError as error:
                self.wrong(f"--output {output}: {error.strerror}.")
        self.progress(f"{count} exported")


def lines(found: QuerySet[Any], count: int) -> Iterator[str]:
    """Each as a JSON object, read `count` at a time."""
    for request in found.prefetch_related("attempts").iterator(count):
        about = {"user": request.queue.user.username, "user_id": request.queue.user_id, "queue": request.queue_id}
        yield orjson.dumps(
            one(request) | about | {"attempts": attempts(request, request.attempts.all())}, option=orjson.OPT_UTC_Z
        ).decode()
