"""What the handlers of a test wrote down, in any process, and what is wrong with it."""

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from accounts.models import User


class Entry(NamedTuple):
    what: str
    user: str
    seq: int
    attempt: int
    at: float
    pid: int


class Journal:
    """What the handlers wrote, in the order of time."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def payload(self, ms: float = 0, fails: int = 0) -> dict[str, Any]:
        """For "test.journal": how long it takes, and how many of its attempts fail."""
        return {"journal": self.path, "ms": ms, "fails": fails}

    def entries(self) -> list[Entry]:
        path = Path(self.path)
        text = path.read_text() if path.exists() else ""
        lines = text[: text.rfind("\n") + 1].splitlines()  # the last one may be half written
        found = []
        for line in lines:
            what, user, seq, attempt, at, pid = line.split()
            found.append(Entry(what, user, int(seq), int(attempt), int(at) / 1e9, int(pid)))
        return sorted(found, key=lambda entry: entry.at)

    def begun(self, user: User, since: float = 0) -> list[Entry]:
        """The beginnings of this user's attempts, in the order of time."""
        return [e for e in self.entries() if e.what == "begin" and e.user == str(user.id) and e.at >= since]

    def violations(self, accepted: dict[str, int], killed: Iterable[int] = ()) -> list[str]:
        """What is wrong with it: lost, out of order, overlapping. `accepted`: how many requests each user sent.

        Only what a killed process had begun may be begun again.
        """
        dead = set(killed)
        wrong = []
        by_user: dict[str, list[Entry]] = defaultdict(list)
        for entry in self.entries():
            by_user[entry.user].append(entry)
        for user, count in accepted.items():
            done = 0
            open_: Entry | None = None
            for entry in by_user[user]:
                if entry.what == "begin":
                    if open_ is not None and open_.pid not in dead:
                        wrong.append(f"{user}: {entry.seq} began while {open_.seq} ran")
                    again = entry.seq == done and bool(dead)  # it had ended, but was not recorded
                    if entry.seq != done + 1 and not again:
                        wrong.append(f"{user}: {entry.seq} began after {done} had ended")
                    open_ = entry
                else:
                    if open_ is None or open_.seq != entry.seq:
                        wrong.append(f"{user}: {entry.seq} ended without having begun")
                    done, open_ = entry.seq if entry.what == "end" else done, None
            if done != count:
                wrong.append(f"{user}: {done} of {count} were run")
        return wrong
