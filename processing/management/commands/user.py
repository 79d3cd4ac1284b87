"""manage.py user: write out all that is known of a user, or remove it."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import orjson
from django.core.management.base import CommandError, CommandParser

from accounts.audit import Event, record
from accounts.models import User
from processing.broker.errors import BrokerUnavailable
from processing.operations.erase import erase
from project.rest.renderers import OPTIONS
from queues.exceptions import NoSuch, NotPossible
from queues.management.command_base import Exit, OperatorCommand, seconds, whoever
from queues.models import UserQueue
from queues.operations.export import records
from queues.operations.selectors import find_user

PATIENCE = 30.0
TOLD_EVERY = 10_000


class Command(OperatorCommand):
    help = "Write out all that is known of a user, as JSON lines, or remove all of it."
    name = "user"

    def add_arguments(self, parser: CommandParser) -> None:
        verbs = self.verbs(parser)
        command = verbs.add_parser("export", help='One JSON object a line; the last one is {"record": "end", ..}.')
        command.add_argument("user", help="Their id or name.")
        command.add_argument(
            "--output", default="-", help="A new file, readable by you alone. Default: standard output."
        )

        command = self.changes(verbs.add_parser("erase", help="Killed in the middle, it is begun again."))
        command.add_argument("user", help="Their id or name.")
        command.add_argument(
            "--patience", type=seconds, default=PATIENCE, help="Seconds for what runs to end. Default: 30."
        )

    def handle_export(self, user: str, output: str, **_: Any) -> None:
        found = find_user(user)
        with self.recorded("export", found.id) as action, opened(output) as file:
            count = 0
            for count, line in enumerate(records(found), 1):
                file.write(orjson.dumps(line, option=OPTIONS | orjson.OPT_APPEND_NEWLINE))
                if count % TOLD_EVERY == 0:
                    self.progress(f"{count} records")
            record(Event.EXPORTED, found.id, detail=f"by {whoever()}")
            action.outcome = f"{count - 1} records"
        self.progress(action.outcome)

    def handle_erase(self, user: str, patience: float, **_: Any) -> None:
        found = find_user(user)
        accepted = sum(UserQueue.objects.filter(user=found).values_list("last_seq", flat=True))
        if not self.confirm(f"erase {found.username} ({found.id}), who asked for {accepted} requests, for good"):
            return
        with self.recorded("erase", found.id) as action:
            try:
                requests = erase(found, patience=patience, count=self.batch_size, by=whoever(), tell=self.progress)
            except NotPossible as why:
                action.outcome = f"refused: {why}"
                raise CommandError(str(why), returncode=Exit.REFUSED) from None
            except User.DoesNotExist:
                action.outcome = "somebody else had done it"
                raise NoSuch(f"There is no user {user!r} any more.") from None
            except BrokerUnavailable as error:
                action.outcome = "not done: RabbitMQ is away"
                said = f"RabbitMQ does not answer ({error}). The user is locked out; run it again for the rest."
                raise CommandError(said, returncode=Exit.SERVER_AWAY) from None
            action.outcome = f"erased, with {requests} requests"
        self.progress(action.outcome)


@contextmanager
def opened(output: str) -> Iterator[Any]:
    """The file, or standard output for `-`. Raises CommandError when it is there already, or cannot be made."""
    if output == "-":
        yield sys.stdout.buffer
        sys.stdout.flush()
        return
    try:
        descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise CommandError(f"{output}: {error.strerror}.", returncode=Exit.USAGE) from None
    with os.fdopen(descriptor, "wb") as file:
        yield file
