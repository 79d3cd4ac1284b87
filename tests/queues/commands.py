"""Runs an operator's command in this process; what it printed, and how it ended."""

import io
import json
from dataclasses import dataclass
from typing import Any

from django.core.management import CommandError, call_command


@dataclass
class Ran:
    out: str
    err: str
    status: int
    said: str = ""

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()


def run(*words: object) -> Ran:
    """As typed: the command, its verb, its arguments and options."""
    out, err = io.StringIO(), io.StringIO()
    status, said = 0, ""
    try:
        call_command(*map(str, words), stdout=out, stderr=err)
    except CommandError as error:
        status, said = error.returncode, str(error)
    return Ran(out.getvalue(), err.getvalue(), status, said)
