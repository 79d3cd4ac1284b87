"""How far each partition is: what was read of it and is not settled yet, and the offset that may be committed."""

from dataclasses import dataclass, field

from processing.kafka.reading import Message

MOST_HELD = 2_000  # messages of a partition that are read and not settled, before it is paused ..
MOST_BYTES = 16 * 1024**2  # .. or so many bytes of them ..
FARTHEST = 100_000  # .. or so many messages between the oldest of them and the newest that was read

Name = tuple[str, int]  # topic and partition


@dataclass
class Partition:
    position: int = -1  # after the newest message that was read
    stored: int = -1  # what was told to librdkafka, which commits it
    bytes: int = 0
    open: dict[int, Message] = field(default_factory=dict)  # by offset

    def begin(self, message: Message) -> None:
        self.open[message.offset] = message
        self.bytes += message.size
        self.position = message.offset + 1

    def settle(self, message: Message) -> None:
        if self.open.pop(message.offset, None) is not None:
            self.bytes -= message.size

    @property
    def done(self) -> int:
        """All below this offset is settled."""
        return min(self.open, default=self.position)

    @property
    def heavy(self) -> bool:
        """Whether no more of it should be read for now."""
        far = self.position - self.done > FARTHEST
        return len(self.open) >= MOST_HELD or self.bytes >= MOST_BYTES or far
