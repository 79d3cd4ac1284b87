"""Reading together what many ask for at the same time: their sessions, queues, and a request each, in one statement."""

from typing import NamedTuple
from uuid import UUID

import orjson

from project.web.together import Together, Waiting
from queues.models import UserQueue
from queues.representation.rows import RequestRow, queue_of, request_of
from queues.sql.reads import OWN_REQUESTS, QUEUE

MOST_BYTES = 64 * 1024  # of a request's texts: a larger one is read by itself


class Lookup(NamedTuple):
    """Who asks, whether for their queue, and for which request of it; else whether their session lives is all."""

    user_id: UUID
    session_id: UUID
    queue: bool
    request_id: UUID | None


class LookupResult(NamedTuple):
    """The caller's session lives. Their queue, if they have one; their request, if it is theirs and not too large."""

    queue: UserQueue | None
    request: RequestRow | None


class GroupRead(Together[Lookup]):
    """Where the requests of a process bring what they want to read."""

    name = "group-read"

    async def find(
        self, user_id: UUID, session_id: UUID, *, queue: bool = False, request_id: UUID | None = None
    ) -> LookupResult | None:
        """What there is; None: the session has ended. Raises django.db.Error."""
        ask = Lookup(user_id, session_id, queue or request_id is not None, request_id)
        answer: LookupResult | None = await self.bring(Waiting(ask))
        return answer

    def serve(self, group: list[Waiting[Lookup]]) -> None:
        asks = [
            {"n": n, "u": one.ask.user_id, "s": one.ask.session_id, "q": one.ask.queue, "r": one.ask.request_id}
            for n, one in enumerate(group)
        ]
        at = len(QUEUE) + 1
        for row in OWN_REQUESTS.tuples(most_bytes=MOST_BYTES, asks=orjson.dumps(asks).decode()):
            queue = queue_of(row[1:at])
            group[row[0]].answer = LookupResult(queue, request_of(row[at:], queue))
