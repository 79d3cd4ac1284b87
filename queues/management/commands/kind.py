"""manage.py kind: pause and resume kinds, and limit them, in this deployment and at once."""

from typing import Any

from django.core.management.base import CommandParser

from queues.kinds import Rate
from queues.limits import deployment
from queues.limits.deployment import KindAtWork
from queues.management.command_base import LARGEST, OperatorCommand, counted

COLUMNS = ("kind", "max_concurrency", "rate", "set_here", "paused", "running", "waiting", "waits_seconds", "handler")


class Command(OperatorCommand):
    help = "List kinds with their limits, pause or resume them, or set other limits than their handlers declare."
    name = "kind"

    def add_arguments(self, parser: CommandParser) -> None:
        verbs = self.verbs(parser)
        self.looks(verbs.add_parser("list", help="Every kind: its limits here, what runs and what waits for them."))
        for verb, about in (
            ("pause", "Begin no request of these kinds; what runs ends, accepting goes on."),
            ("resume", "Go on, with who waited longest first."),
        ):
            command = self.changes(verbs.add_parser(verb, help=about))
            command.add_argument("kind", nargs="+", help="Names of kinds.")
        command = self.changes(verbs.add_parser("limit", help="Limit a kind here, whatever its handler declares."))
        command.add_argument("kind", nargs=1, help="The name of a kind.")
        command.add_argument("--max-concurrency", metavar="N", help="Most that run at once; none: no limit.")
        command.add_argument("--rate", metavar="RATE", help="Most that begin, as 100/m or 5/10s; none: no limit.")
        command.add_argument("--reset", action="store_true", help="Back to what the handler declares.")

    def handle_list(self, **_: Any) -> None:
        self.table(COLUMNS, [row(kind) for kind in deployment.at_work()])

    def handle_pause(self, kind: list[str], **_: Any) -> None:
        if not self.confirm(f"pause {counted(len(kind), 'kind')}: {', '.join(kind)}"):
            return
        with self.recorded("pause", *kind) as action:
            by = ": ".join(filter(None, (action.by, action.reason)))
            self.each(
                action, kind, len(kind), lambda one: deployment.pause(one, by), "paused", ("kind",),
                lambda one: {"kind": one},
            )  # fmt: skip

    def handle_resume(self, kind: list[str], **_: Any) -> None:
        if not self.confirm(f"resume {counted(len(kind), 'kind')}: {', '.join(kind)}"):
            return
        with self.recorded("resume", *kind) as action:
            self.each(
                action, kind, len(kind), deployment.resume, "resumed", ("kind",), lambda one: {"kind": one},
            )  # fmt: skip

    def handle_limit(
        self, kind: list[str], max_concurrency: str | None, rate: str | None, reset: bool, **_: Any
    ) -> None:
        if reset == (max_concurrency is not None or rate is not None):
            self.wrong("Give --max-concurrency or --rate, or --reset alone.")
        limits: dict[str, Any] = {"max_concurrency": None, "rate": None} if reset else {}
        if max_concurrency is not None:
            limits["max_concurrency"] = self._concurrency(max_concurrency)
        if rate is not None:
            limits["rate"] = self._rate(rate)
        told = "as declared" if reset else ", ".join(f"{name} {value or 'none'}" for name, value in limits.items())
        (name,) = kind
        if not self.confirm(f"limit {name}: {told}"):
            return
        with self.recorded("limit", name, told) as action:
            deployment.set_limits(name, **limits)
            action.outcome = "limited"
        self.table(COLUMNS, [row(one) for one in deployment.at_work() if one.kind == name])

    def _concurrency(self, text: str) -> int:
        if text == "none":
            return 0
        if not (text.isascii() and text.isdigit() and 1 <= int(text) <= LARGEST):
            self.wrong(f"--max-concurrency {text}: write a whole number from 1, or none.")
        return int(text)

    def _rate(self, text: str) -> Rate | int:
        if text == "none":
            return 0
        try:
            return Rate.parse(text)
        except ValueError as wrong:
            self.wrong(f"--rate {text}: {wrong} Or none.")


def row(kind: KindAtWork) -> dict[str, Any]:
    return {
        "kind": kind.kind,
        "max_concurrency": kind.max_concurrency,
        "rate": None if kind.rate is None else str(kind.rate),
        "set_here": kind.set_here,
        "paused": kind.paused,
        "running": kind.running,
        "waiting": kind.waiting,
        "waits_seconds": None if kind.waits_seconds is None else round(kind.waits_seconds, 1),
        "handler": kind.has_handler,
    }
