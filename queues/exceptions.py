"""What can go wrong across a border: each error is raised below and answered above, by this name."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from queues.models import UserQueue


class SessionOver(Exception):
    """The session has ended, or its user may not log in any more."""


class QueueFull(Exception):
    """The user has as many requests waiting as they may."""

    def __init__(self, queue: "UserQueue") -> None:
        super().__init__(f"{queue.depth} requests are waiting; the limit is {queue.limit}.")
        self.queue = queue


class TooManyGivenUp(QueueFull):
    """Behind a request that is not done as many were given up as may be: they keep their places until it is."""

    def __init__(self, queue: "UserQueue") -> None:
        super().__init__(queue)
        self.args = (
            f"{queue.given_up_ahead} requests were cancelled or have expired behind one that is not done:"
            " there are no more places in line until it is.",
        )


class TooManyBytes(QueueFull):
    """The user has as many bytes waiting, or stored, as they may: `code` says which, `limit` and `used` how many."""

    def __init__(self, queue: "UserQueue", code: str, limit: int, used: int, asked: int) -> None:
        super().__init__(queue)
        self.args = (f"{used} bytes are {code.removeprefix('bytes_')}; {asked} more are over the limit of {limit}.",)
        self.code, self.limit, self.used, self.asked = code, limit, used, asked


class FencedOut(Exception):
    """Somebody else owns the queue by now, or nobody does: stop at once. Nothing was written."""


class NotPossible(Exception):
    """The request or queue is not in a state that allows it; the message says why, for its owner to read."""


class KeyReused(Exception):
    """The key came before, with another body or to another path."""


class KeyInUse(Exception):
    """The first call with the key is under way, and did not end for as long as one may wait."""


class NoSuch(LookupError):
    """No user, queue or request of that name; the message says which was looked for."""


class UnknownKind(LookupError):
    """No handler is registered for this kind and version."""
