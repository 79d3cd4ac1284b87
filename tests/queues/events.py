"""Server-Sent Events as a client reads them."""

import json
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple


class Event(NamedTuple):
    name: str
    id: str
    data: Any

    @property
    def summary(self) -> tuple[Any, ...]:
        """What a request's event is about: its place, status and progress."""
        progress = self.data["progress"]
        return self.data["sequence"], self.data["status"], progress and progress["current"]


def events(lines: Iterable[str]) -> Iterator[Event]:
    """The events that are complete in these lines; comments and `retry` are passed over."""
    fields: dict[str, str] = {}
    for line in lines:
        if not line:
            if "event" in fields:
                yield Event(fields["event"], fields["id"], json.loads(fields["data"]))
            fields = {}
            continue
        name, _, value = line.partition(": ")
        assert name not in fields, f"{name} twice in one event"
        if name:
            fields[name] = value


def read(stream: bytes) -> list[Event]:
    """All events of a finished stream."""
    return list(events(stream.decode().split("\n")))
