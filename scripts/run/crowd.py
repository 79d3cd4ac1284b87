"""Who takes part in the demo: three users, what each submits, and what came of it."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from scripts.run.client import ACCEPTED

Work = dict[str, Any]


@dataclass
class Program:
    """A program of the user's own: it submits batches of work over so many connections."""

    batches: list[list[Work]]
    connections: int


@dataclass
class Demonstrator:
    """A user of the demo: what is submitted, and what came of it."""

    name: str
    load: str
    programs: list[Program]
    token: str = ""
    queue: dict[str, Any] = field(default_factory=dict)
    answers: Counter[str] = field(default_factory=Counter)
    requests: list[dict[str, Any]] = field(default_factory=list)

    @property
    def asked(self) -> int:
        return sum(len(batch) for program in self.programs for batch in program.batches)

    @property
    def accepted(self) -> int:
        return self.answers[ACCEPTED]


def crowd() -> list[Demonstrator]:
    """Who takes part."""
    echoes = [{"kind": "demo.echo", "payload": {"n": n}} for n in range(900)]
    slow = [{"kind": "demo.steps", "payload": {"steps": 5, "delay_ms": 50}} for _ in range(10)]
    flaky = [{"kind": "demo.flaky", "payload": {"failures": n % 3}} for n in range(9)]
    batches = [echoes[n : n + 50] for n in range(0, 450, 50)]
    flood = [Program(batches, connections=2), Program([[one] for one in echoes[450:]], connections=4)]
    return [
        Demonstrator("flo", "floods: 900 x demo.echo", flood),
        Demonstrator("sam", "slow: 10 x demo.steps", [Program([[one] for one in slow], connections=1)]),
        Demonstrator("fay", "flaky: 9 x demo.flaky", [Program([[one] for one in flaky], connections=3)]),
    ]
