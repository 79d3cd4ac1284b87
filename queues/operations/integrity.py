"""Counters against rows: finds queues where they disagree. `lifecycle/correction.py` brings them together again."""

from collections.abc import Iterator
from dataclasses import dataclass
from uuid import UUID

from queues.sql.maintenance import COMPARE_COUNTERS

LOOK_BACK, FOR_EVER = 1_000, 2**62  # numbers behind the head of a queue


@dataclass(frozen=True, slots=True)
class Mismatch:
    """A queue whose counters promise `owed` requests while `rows` are there, the newest with the number `newest`.

    Or one that says that `given_up_ahead` of them are final while `final` are; or one that has passed `passed`
    requests, `first` before the others, although they have no outcome; or whose `bytes_stored` are not the
    `kept` ones of its rows (None: they were not added up).
    """

    queue_id: int
    done_seq: int
    last_seq: int
    owed: int
    rows: int
    newest: int
    given_up_ahead: int
    final: int
    passed: int
    first: UUID | None
    bytes_stored: int
    kept: int | None

    @property
    def wrong(self) -> bool:
        counted = self.owed == self.rows and self.newest <= self.last_seq and self.given_up_ahead == self.final
        return not counted or self.passed > 0 or self.miscounted

    @property
    def miscounted(self) -> bool:
        return self.kept is not None and self.kept != self.bytes_stored

    def __str__(self) -> str:
        told = []
        if self.newest > self.last_seq:
            told.append(f"last_seq is {self.last_seq}, but a request has the number {self.newest}")
        elif self.owed != self.rows:
            told.append(f"{self.owed} requests should be there, {self.rows} rows are")
        if self.given_up_ahead != self.final:
            told.append(f"given_up_ahead is {self.given_up_ahead}, but of what is ahead {self.final} are final")
        if self.passed:
            also = f" and {self.passed - 1} more" if self.passed > 1 else ""
            told.append(f"it has passed request {self.first}{also} without an outcome (done_seq is {self.done_seq})")
        if self.miscounted:
            told.append(f"bytes_stored is {self.bytes_stored}, but its requests have {self.kept}")
        return f"queue {self.queue_id}: {'; '.join(told)}"


def compare(count: int, everywhere: bool = False) -> Iterator[tuple[int, list[Mismatch]]]:
    """Look at queues that are not at rest, at the LOOK_BACK newest of what they have passed, or at everything.

    Yields for each batch how many queues it had, and what is wrong.
    """
    after, look_back = 0, FOR_EVER if everywhere else LOOK_BACK
    while rows := COMPARE_COUNTERS.rows(after=after, all=everywhere, look_back=look_back, count=count):
        after = rows[-1].id
        found = (Mismatch(*row) for row in rows)
        yield len(rows), [one for one in found if one.wrong]
