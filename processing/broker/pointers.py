"""What is published of a request, and to which of RabbitMQ's queues."""

import struct
from typing import NamedTuple
from uuid import UUID

from django.conf import settings

POINTER = struct.Struct(">q16s")
OLD_NAMES = 8  # how many earlier names of a queue are deleted with it


class Pointer(NamedTuple):
    """What is published to a user's queue: which request, and its place in line."""

    seq: int
    request_id: UUID

    def encode(self) -> bytes:
        """The message's body: 24 bytes."""
        return POINTER.pack(self.seq, self.request_id.bytes)


class Delivery(NamedTuple):
    """A message as it is received: its place in line, which is all that a worker goes by, and its delivery tag."""

    seq: int
    tag: int

    @classmethod
    def decode(cls, body: bytes, tag: int) -> "Delivery":
        """A message that is no pointer (somebody else's) counts as one long done, so that it is acked and forgotten."""
        return cls(POINTER.unpack(body)[0] if len(body) == POINTER.size else 0, tag)


def queue_name(queue_id: int, generation: int = 0) -> str:
    """The RabbitMQ queue of a user's queue; it gets a new name when the one it had cannot be used."""
    return f"{settings.ENV.queue_prefix}user.{queue_id}{f'.{generation}' if generation else ''}"


def names_of(queue_id: int, generation: int) -> list[str]:
    """The queue's name and those that it had before it."""
    return [queue_name(queue_id, g) for g in range(max(0, generation - OLD_NAMES), generation + 1)]
