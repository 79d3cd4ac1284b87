"""Reading together what many ask for at the same time: their sessions, and a request each, in one statement."""

from typing import NamedTuple
from uuid import UUID

import orjson

from project.web.together import Together, Waiting
from queues.representation.rows import RequestRow, queue_of, request_of
from queues.sql.reads import OWN_REQUESTS, QUEUE

MOST_BYTES = 64 * 1024  # of a request's texts: a larger one is read by itself


class Lookup(NamedTuple):
    """Who asks, and for which of their requests; None: whether their session lives is all."""

    user_id: UUID
    session_id: UUID
    request_id: UUID | None


class LookupResult(NamedTuple):
    """The caller's session lives. Their request, if it is theirs and not too large."""

    request: RequestRow | None


class GroupRead(Together[Lookup]):
    """Where the requests of a process bring what they want to read."""

    name = "group-read"

    async def find(self, user_id: UUID, session_id: UUID, request_id: UUID | None = None) -> LookupResult | None:
        """What there is; None: the session has ended. Raises django.db.Error."""
        answer: LookupResult | None = await self.bring(Waiting(Lookup(user_id, session_id, request_id)))
        return answer

    def serve(self, group: list[Waiting[Lookup]]) -> None:
        asks = [
            {"n": n, "u": one.ask.user_id, "s": one.ask.session_id, "r": one.ask.request_id}
            for n, one in enumerate(group)
        ]
        at = len(QUEUE) + 1
        for row in OWN_REQUESTS.rows(most_bytes=MOST_BYTES, asks=orjson.dumps(asks).decode()):
            group[row.n].answer = LookupResult(request_of(row[at:], queue_of(row[1:at])))
