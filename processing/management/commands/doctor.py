"""manage.py doctor: look at every part, and say what to do."""

from typing import Any

from django.core.exceptions import ObjectDoesNotExist
from django.core.management.base import CommandError, CommandParser

from processing.broker.errors import BrokerUnavailable
from processing.operations.doctor import Finding, Grade, diagnose
from queues.exceptions import NotPossible
from queues.management.command_base import Exit, OperatorCommand, counted

COLUMNS = ("check", "grade", "detail", "advice")


class Command(OperatorCommand):
    help = (
        "Look at every part, compare counters, rows and broker, and say what to do. Changes nothing without --repair."
    )
    name = "doctor"

    def add_arguments(self, parser: CommandParser) -> None:
        self.changes(parser)
        parser.add_argument(
            "--repair", action="store_true", help="Repair what can be repaired safely, then look again."
        )
        parser.add_argument("--all", action="store_true", help="Compare the counters of queues at rest, too.")

    def run_verb(self, verb: str, repair: bool, all: bool, **_: Any) -> None:  # type: ignore[override]  # noqa: A002
        findings = list(diagnose(self.batch_size, all, self.progress))
        repairable = [finding for finding in findings if finding.repair is not None]
        if repair and repairable and self.confirm(f"repair {counted(len(repairable), 'fault')}"):
            self._repair(repairable)
            findings = list(diagnose(self.batch_size, all, self.progress))
        self.table(COLUMNS, [{name: str(getattr(finding, name)) for name in COLUMNS} for finding in findings])
        faults = sum(finding.grade == Grade.FAULT for finding in findings)
        if faults:
            raise CommandError(counted(faults, "fault"), returncode=Exit.FAULTS)

    def _repair(self, findings: list[Finding]) -> None:
        done = 0
        with self.recorded("--repair") as action:
            for finding in findings:
                try:
                    if finding.repair is not None:
                        finding.repair()
                    done += 1
                    self.progress(f"repaired: {finding.detail}")
                except (NotPossible, BrokerUnavailable, ObjectDoesNotExist) as why:
                    self.progress(f"not repaired: {finding.detail}: {why}")
                action.outcome = f"{done} of {len(findings)} repaired"
