"""manage.py rebuild_broker: make RabbitMQ's queues anew from PostgreSQL."""

from typing import Any

from django.core.management.base import CommandError, CommandParser

from processing.broker.errors import BrokerUnavailable
from processing.operations.rebuild import brought, rebuild
from queues.management.command_base import Exit, OperatorCommand, counted


class Command(OperatorCommand):
    help = "Publish everything that waits to RabbitMQ again, into queues made anew. Nothing is lost, order is kept."
    name = "rebuild_broker"

    def add_arguments(self, parser: CommandParser) -> None:
        self.changes(parser)

    def run_verb(self, verb: str, **_: Any) -> None:
        queues = brought().count()
        if not self.confirm(f"publish {counted(queues, 'queue')} again"):
            self.fields({"would_republish": queues})
            return
        done = left = 0
        with self.recorded() as action:
            try:
                for more, others in rebuild(self.batch_size):
                    done, left = done + more, left + others
                    action.outcome = f"{done} republished, {left} left to the workers that have them"
                    self.progress(action.outcome)
            except BrokerUnavailable as error:
                raise CommandError(f"RabbitMQ does not answer: {error}", returncode=Exit.SERVER_AWAY) from None
        self.fields({"republished": done, "left_to_workers": left})
