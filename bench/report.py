"""What the measurements print: tables, and at the end each ratio beside what was expected of it."""

from dataclasses import dataclass, field

from rich.console import Console
from rich.table import Table


@dataclass
class Report:
    """Collects verdicts while tables are shown."""

    console: Console = field(default_factory=lambda: Console(highlight=False))
    verdicts: list[tuple[str, float, float | None]] = field(default_factory=list)

    def table(self, title: str, *columns: str) -> Table:
        """An empty table; its first column names the row."""
        table = Table(title=title, title_justify="left", title_style="bold")
        for number, column in enumerate(columns):
            table.add_column(column, justify="right" if number else "left")
        return table

    def show(self, table: Table) -> None:
        self.console.print(table)
        self.console.print()

    def say(self, text: str) -> None:
        self.console.print(text, style="dim")

    def verdict(self, what: str, found: float, expected: float | None) -> None:
        """Remember a ratio, and the least that is expected of it (None: it is just told)."""
        self.verdicts.append((what, found, expected))

    def close(self) -> None:
        """Show all ratios."""
        if not self.verdicts:
            return
        table = self.table("Ratios", "", "found", "expected", "")
        for what, found, expected in self.verdicts:
            told = "" if expected is None else "as expected" if found >= expected else "[red]less than expected[/red]"
            table.add_row(what, ratio(found), "" if expected is None else f"at least {ratio(expected)}", told)
        self.show(table)


def rate(value: float) -> str:
    return f"{value:,.0f}"


def ratio(value: float) -> str:
    return f"{value:.2f} x"


def milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:,.1f} ms"
