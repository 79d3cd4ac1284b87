"""What operators' commands share: options, exit codes, tables, confirmation, and the record of what was done."""

import getpass
import os
import re
import socket
import sys
from argparse import ArgumentParser
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from enum import IntEnum
from itertools import islice
from typing import Any, NoReturn, TypeVar

import orjson
import structlog
from django.core.exceptions import ObjectDoesNotExist
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import InterfaceError, OperationalError
from django.db.models.functions import Now

from queues.exceptions import NoSuch, NotPossible, QueueFull, SessionOver
from queues.models import OperatorAction

log = structlog.get_logger()

Target = TypeVar("Target")
Row = Mapping[str, Any]

UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
LONGEST_SPAN = timedelta(days=18_000)  # requests' ids tell times from 1970 on
LARGEST = 2**31 - 1
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")  # a user's name must not control an operator's terminal


class Exit(IntEnum):
    """What the exit status of a command means."""

    DONE = 0  # also if there was nothing to do
    REFUSED = 1  # some of it was not possible; it says what and why, the rest is done
    USAGE = 2  # the command line does not fit
    NOT_FOUND = 3  # no such user, queue or request
    SERVER_AWAY = 4  # PostgreSQL or RabbitMQ does not answer
    FAULTS = 5  # doctor: something is wrong
    NOT_CONFIRMED = 6  # it was not confirmed; nothing was changed


class OperatorCommand(BaseCommand):
    """A command with verbs. `handle_<verb>` does it; what it prints is a table, or JSON with --json."""

    requires_system_checks: list[str] = []
    name = ""  # as it is typed

    def verbs(self, parser: CommandParser) -> Any:
        """Where each verb is declared, by `add_parser`, with the options of `looks` or `changes`."""
        return parser.add_subparsers(dest="verb", required=True, metavar="VERB")

    def looks(self, parser: ArgumentParser) -> ArgumentParser:
        """The options of one that only looks."""
        parser.add_argument("--json", action="store_true", help="JSON instead of a table.")
        return parser

    def changes(self, parser: ArgumentParser) -> ArgumentParser:
        """The options of one that changes something."""
        parser.add_argument("--dry-run", action="store_true", help="Say what would be done, and change nothing.")
        parser.add_argument("--yes", action="store_true", help="Don't ask.")
        parser.add_argument("--reason", default="", help="Why; kept with who and what.")
        parser.add_argument("--batch-size", type=positive, default=500, help="So many at a time. Default: 500.")
        return self.looks(parser)

    def execute(self, *args: Any, **options: Any) -> str | None:
        """Run it; what a server that is away means is said in a sentence."""
        try:
            return super().execute(*args, **options)
        except NoSuch as missing:
            raise CommandError(str(missing), returncode=Exit.NOT_FOUND) from None
        except UnicodeEncodeError as error:
            raise CommandError(f"This is no text: {error.object!a}.", returncode=Exit.USAGE) from None
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or its exit would try to write the rest
            raise CommandError("Nobody reads on; the rest was not done.", returncode=Exit.REFUSED) from None
        except (OperationalError, InterfaceError) as error:
            said = str(error).strip().partition("\n")[0]
            raise CommandError(f"PostgreSQL does not answer: {said}", returncode=Exit.SERVER_AWAY) from None

    def handle(self, *args: Any, verb: str = "", **options: Any) -> None:
        self.as_json = bool(options.get("json"))
        self.dry_run = bool(options.get("dry_run"))
        self.sure = bool(options.get("yes"))
        self.reason = str(options.get("reason") or "")
        self.batch_size = int(options.get("batch_size") or 1)
        self.run_verb(verb, **options)

    def run_verb(self, verb: str, **options: Any) -> None:
        """Do it: `handle_<verb>`, unless a command has one way for all its verbs, or none."""
        getattr(self, f"handle_{verb}")(**options)

    def wrong(self, why: str) -> NoReturn:
        """The command line does not fit."""
        raise CommandError(why, returncode=Exit.USAGE)

    # What they print

    def table(self, columns: Sequence[str], rows: Sequence[Row]) -> None:
        """The rows: an array of objects, or aligned columns below their names (empty cells are -)."""
        self.pages(columns, [rows])

    def pages(self, columns: Sequence[str], pages: Iterable[Sequence[Row]]) -> None:
        """The same, page by page, each printed as it comes."""
        if self.as_json:
            self._array(row for page in pages for row in page)
            return
        lines = [[column.replace("_", " ") for column in columns]]
        widths = [0] * len(columns)
        for page in pages:
            lines += [[as_text(row.get(column)) for column in columns] for row in page]
            widths = [max(width, *(len(line[at]) for line in lines)) for at, width in enumerate(widths)]
            numbers = [bool(page) and all(isinstance(r.get(c), int | float | None) for r in page) for c in columns]
            for line in lines:
                padded = (
                    cell.rjust(width) if number else cell.ljust(width)
                    for cell, width, number in zip(line, widths, numbers, strict=True)
                )
                self.stdout.write("  ".join(padded).rstrip())
            lines = []

    def _array(self, rows: Iterable[Row]) -> None:
        """One JSON array, closed also where it ends early: what was done until then is told."""
        before = "["
        try:
            for row in rows:
                self.stdout.write(before + dumped(row), ending="")
                before = ","
        finally:
            self.stdout.write("[]" if before == "[" else "]")

    def fields(self, row: Row) -> None:
        """One object: its fields below each other."""
        if self.as_json:
            self.document(row)
            return
        width = max(map(len, row))
        for name, value in row.items():
            self.stdout.write(f"{name.replace('_', ' '):{width}}  {as_text(value)}")

    def document(self, value: Any) -> None:
        self.stdout.write(dumped(value))

    def progress(self, text: str) -> None:
        """How far it is, on stderr."""
        self.stderr.write(text, self.style.NOTICE)

    # What they change

    def confirm(self, what: str) -> bool:
        """Whether to do it: False in a dry run, which says `what`. Raises CommandError when nobody says yes."""
        if self.dry_run:
            self.progress(f"dry run: would {what}")
            return False
        if self.sure:
            return True
        if sys.stdin is None or not sys.stdin.isatty():
            raise CommandError(f"This would {what}. Add --yes to do it.", returncode=Exit.NOT_CONFIRMED)
        self.stderr.write(f"This will {what}. Go on? [y/N] ", self.style.WARNING, ending="")
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            raise CommandError("Nothing was changed.", returncode=Exit.NOT_CONFIRMED)
        return True

    @contextmanager
    def recorded(self, *words: object) -> Iterator[OperatorAction]:
        """Keep who does what and why; each line that is logged meanwhile says so too. Set `outcome` in the block."""
        command = " ".join(map(str, (self.name, *words)))
        action = OperatorAction.objects.create(by=whoever()[:150], command=command[:1000], reason=self.reason[:500])
        with structlog.contextvars.bound_contextvars(by=action.by, command=command, reason=self.reason):
            try:
                yield action
            finally:
                OperatorAction.objects.filter(id=action.id).update(finished_at=Now(), outcome=action.outcome[:500])
                log.info("operator", outcome=action.outcome)

    def each(
        self,
        action: OperatorAction,
        targets: Iterable[Target],
        total: int,
        verb: Callable[[Target], object],
        done: str,
        columns: Sequence[str],
        name: Callable[[Target], Row],
    ) -> None:
        """Do `verb` to each, and print a row for each; what is not possible is said and leaves the others alone.

        `name` gives a target's `columns`. No more targets are held than one batch. Raises CommandError in the end, once
        all had their turn, if something was refused.
        """
        handled = refused = 0

        def result(target: Target) -> Row:
            nonlocal handled, refused
            why = _tried(verb, target)
            handled += 1
            refused += bool(why)
            action.outcome = f"{handled - refused} {done}, {refused} refused"
            return {**name(target), "result": why or done}

        def results() -> Iterator[Sequence[Row]]:
            for batch in batches(targets, self.batch_size):
                yield [result(target) for target in batch]
                if handled < total:
                    self.progress(f"{handled} of {total}")

        self.pages([*columns, "result"], results())
        if refused:
            raise CommandError(action.outcome, returncode=Exit.REFUSED)


def _tried(verb: Callable[[Target], object], target: Target) -> str:
    """Do it; why it was refused, if it was."""
    try:
        verb(target)
    except (NotPossible, QueueFull) as why:
        return f"refused: {why}"
    except SessionOver:
        return "refused: its user is not active"
    except ObjectDoesNotExist:
        return "refused: it has just been erased"
    return ""


def batches(every: Iterable[Target], count: int) -> Iterator[list[Target]]:
    """Them, `count` at a time."""
    left = iter(every)
    while batch := list(islice(left, count)):
        yield batch


def counted(number: int, noun: str) -> str:
    """1 queue, 2 queues."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def positive(text: str) -> int:
    """An argument that is a number of 1 and more. Raises ValueError, which argparse tells."""
    number = int(text)
    if not 1 <= number <= LARGEST:
        raise ValueError
    return number


def seconds(text: str) -> float:
    """An argument that is a time to wait, 0 and more. Raises ValueError, which argparse tells."""
    number = float(text)
    if not 0 <= number <= LONGEST_SPAN.total_seconds():  # false for nan, too
        raise ValueError
    return number


def span(text: str) -> timedelta:
    """An argument like 90s, 15m, 24h, 30d or 2w. Raises ValueError, which argparse tells."""
    number, unit = text[:-1], UNITS.get(text[-1:])
    if unit is None or not (number.isascii() and number.isdigit()):
        raise ValueError
    try:
        found = timedelta(**{unit: int(number)})
    except OverflowError:
        raise ValueError from None
    if found > LONGEST_SPAN:
        raise ValueError
    return found


def dumped(value: Any) -> str:
    """A value as JSON."""
    return orjson.dumps(value, default=str, option=orjson.OPT_UTC_Z).decode()


def as_text(value: Any) -> str:
    """A value in a cell."""
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.1f}"
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M:%S")
    text = orjson.dumps(value, default=str).decode() if isinstance(value, dict | list | orjson.Fragment) else str(value)
    return CONTROL.sub("?", " ".join(text.split()))


def whoever() -> str:
    """The user of this machine who typed the command, and the machine."""
    try:
        user = os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):
        user = f"uid {os.getuid()}"  # a container's user need not have a name
    return f"{user}@{socket.gethostname()}"
