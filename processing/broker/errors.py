"""What can be wrong with RabbitMQ: all of it, or one queue."""

NOT_FOUND, LOCKED, OTHER_ARGUMENTS = 404, 405, 406  # RabbitMQ's reply codes


class BrokerUnavailable(Exception):
    """RabbitMQ is not there, refuses us, or does not answer in time."""


class QueueUnavailable(Exception):
    """RabbitMQ answers, but not about this queue: its node is down, or it was declared with other arguments.

    `code` is RabbitMQ's reply code; 0: it said nothing.
    """

    def __init__(self, why: str, code: int = 0) -> None:
        super().__init__(why)
        self.code = code

    @property
    def may_be_its_node(self) -> bool:
        """Whether other queues may have gone the same way."""
        return self.code in (0, NOT_FOUND)

    @property
    def helps_to_rename(self) -> bool:
        """Whether another name may do: not where RabbitMQ forbids it, or has no room for a queue."""
        return self.code in (0, NOT_FOUND, LOCKED, OTHER_ARGUMENTS)


class QueueGone(Exception):
    """The user's queue does not exist in RabbitMQ (any more)."""
