"""What is published of requests, and to which of RabbitMQ's queues."""

import struct
from typing import NamedTuple

from django.conf import settings

POINTER = struct.Struct(">qqq")
OLD_NAMES = 8  # how many earlier names of a queue are deleted with it


class Pointer(NamedTuple):
    """What is published to a user's queue: of which places in line, from the first to the last, requests are there."""

    first: int
    last: int

    def encode(self) -> bytes:
        """The message's body: 24 bytes."""
        return POINTER.pack(self.first, self.last, 0)


class Delivery(NamedTuple):
    """A pointer as it is received, with its delivery tag. These places in line are all that a worker goes by."""

    first: int
    last: int
    tag: int

    @property
    def places(self) -> int:
        """How many it names; 1 of what is no pointer."""
        return max(1, self.last - self.first + 1)

    @classmethod
    def decode(cls, body: bytes, tag: int) -> "Delivery":
        """A message that is no pointer (somebody else's) counts as one long done, so that it is acked and forgotten.

        One of an earlier release is of one request: after its place came its id, which ends in random bytes.
        """
        first, last, rest = POINTER.unpack(body) if len(body) == POINTER.size else (0, 0, 0)
        return cls(first, first if rest else last, tag)


def queue_name(queue_id: int, generation: int = 0) -> str:
    """The RabbitMQ queue of a user's queue; it gets a new name when the one it had cannot be used."""
    return f"{settings.ENV.queue_prefix}user.{queue_id}{f'.{generation}' if generation else ''}"


def names_of(queue_id: int, generation: int) -> list[str]:
    """The queue's name and those that it had before it."""
    return [queue_name(queue_id, g) for g in range(max(0, generation - OLD_NAMES), generation + 1)]
