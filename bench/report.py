"""What the measurements say: tables as they come, each ratio beside what was expected of it, and all of it as JSON."""

import json
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

Printed = dict[str, Any]


WIDTH = 140  # of what goes to no terminal


def console() -> Console:
    return Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH)


@dataclass
class Report:
    """Collects verdicts while tables are shown."""

    console: Console = field(default_factory=console)
    verdicts: list[tuple[str, float, float | None]] = field(default_factory=list)
    tables: list[Printed] = field(default_factory=list)
    charts: list[Printed] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    raw: dict[str, Any] = field(default_factory=dict)

    def table(self, title: str, *columns: str) -> Table:
        """An empty table; its first column names the row."""
        table = Table(title=title, title_justify="left", title_style="bold")
        for number, column in enumerate(columns):
            table.add_column(column, justify="right" if number else "left")
        return table

    def show(self, table: Table) -> None:
        """Print it, and keep it for the documentation."""
        heads = [str(column.header) for column in table.columns]
        rows = zip(*(column.cells for column in table.columns), strict=True)
        kept = [[str(cell) for cell in row] for row in rows]
        self.tables.append({"title": str(table.title), "columns": heads, "rows": kept})
        self.console.print(table)
        self.console.print()

    def say(self, text: str) -> None:
        """Tell how it goes; it is not kept."""
        self.console.print(text, style="dim")

    def note(self, text: str) -> None:
        """Tell what belongs to the figures: what could not be measured, and why."""
        self.notes.append(text)
        self.console.print(text, style="yellow")

    def chart(self, title: str, values: dict[str, list[float]], seconds: bool = False) -> None:
        """Keep what a picture shows: bars with their ranges, one a name."""
        self.charts.append({"title": title, "seconds": seconds, "values": values})

    def verdict(self, what: str, found: float, expected: float | None) -> None:
        """Remember a ratio, and the least that is expected of it (None: it is just told)."""
        self.verdicts.append((what, found, expected))

    def save(self, path: Path, about: dict[str, Any]) -> None:
        """All that was found, as JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = {"tables": self.tables, "charts": self.charts, "notes": self.notes, "raw": self.raw}
        kept |= {"verdicts": self.verdicts, "at": time.strftime("%Y-%m-%d %H:%M"), **about}
        path.write_text(json.dumps(kept, indent=1))

    def close(self) -> None:
        """Show all ratios that were expected."""
        expected = [one for one in self.verdicts if one[2] is not None]
        if not expected:
            return
        table = Table(title="Ratios", title_justify="left", title_style="bold")
        for column in ("", "found", "expected", ""):
            table.add_column(column)
        for what, found, least in expected:
            assert least is not None
            told = "as expected" if found >= least else "[red]less than expected[/red]"
            table.add_row(what, ratio(found), f"at least {ratio(least)}", told)
        self.console.print(table)


def rate(value: float) -> str:
    return f"{value:,.0f}"


def ratio(value: float) -> str:
    return f"{value:.2f} x"


def milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:,.1f} ms"
