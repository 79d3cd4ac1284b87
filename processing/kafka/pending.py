"""The events that wait to be accepted: each user's in order, and no user's behind another's."""

from collections import defaultdict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import islice
from uuid import UUID

from processing.kafka.group import Entry

FIRST_PAUSE, LONGEST_PAUSE = 0.05, 1.0  # seconds until a user whose queue had no room is tried again


@dataclass
class UserEvents:
    """One user's. `most` are tried at once: fewer after they had no room, more after they had."""

    entries: deque[Entry] = field(default_factory=deque)
    most: int = 1
    pause: float = 0.0
    again: float = 0.0  # on the caller's clock


class PendingEvents:
    def __init__(self, group: int) -> None:
        self.group = group  # events that are accepted together
        self.of_user: dict[UUID, UserEvents] = {}

    def add(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
            line = self.of_user.get(entry.user_id)
            if line is None:
                line = self.of_user[entry.user_id] = UserEvents(most=self.group)
            line.entries.append(entry)

    def take(self, now: float, most: int) -> list[Entry]:
        """The next group: the first ones of whose turn it is. They stay in line. No event id comes twice."""
        found: dict[UUID, Entry] = {}
        for line in self.of_user.values():
            if len(found) >= most:
                break
            if line.again <= now:
                for entry in islice(line.entries, min(line.most, most - len(found))):
                    if entry.id in found:
                        break  # what comes behind it waits, too: in order
                    found[entry.id] = entry
        return list(found.values())

    def settled(self, group: Iterable[Entry], left: Iterable[Entry], now: float) -> None:
        """The group is dealt with, but for those that are left. Who had a turn goes behind the others."""
        left_ids = {entry.id for entry in left}
        tried: defaultdict[UUID, list[Entry]] = defaultdict(list)
        for entry in group:
            tried[entry.user_id].append(entry)
        for user_id, entries in tried.items():
            line = self.of_user.pop(user_id)
            for _ in entries:
                line.entries.popleft()
            waiting = [entry for entry in entries if entry.id in left_ids]
            line.entries.extendleft(reversed(waiting))
            line.most = max(1, len(waiting) // 2) if waiting else min(self.group, 2 * line.most)
            line.pause = min(LONGEST_PAUSE, max(FIRST_PAUSE, 2 * line.pause)) if waiting else 0.0
            line.again = now + line.pause
            if line.entries:
                self.of_user[user_id] = line

    def drop(self, gone: Callable[[Entry], bool]) -> list[Entry]:
        """Forget some; which."""
        dropped = []
        for user_id, line in list(self.of_user.items()):
            dropped += [entry for entry in line.entries if gone(entry)]
            line.entries = deque(entry for entry in line.entries if not gone(entry))
            if not line.entries:
                del self.of_user[user_id]
        return dropped

    def __len__(self) -> int:
        return sum(len(line.entries) for line in self.of_user.values())
