"""Counting and accepting together what many ask for at the same time: a round trip to Redis, and one commit.

A commit costs PostgreSQL about the same whether it keeps one request or twenty. So one thread commits for a process.
"""

import structlog
from django.db import DatabaseError, OperationalError

from project.web import rate_limit
from project.web.together import Together, Waiting
from queues.enqueue.accept import TakenTogether, accept_together
from queues.notify import hints
from queues.notify.changes import changed
from queues.values import Accepted, SubmissionCall

TRIES = 8  # whoever has a queue's lock, most often the dispatcher, has it for a few milliseconds
MOST_BYTES = 64 * 1024  # that are sent to PostgreSQL for one request in all tries: others' wait in the same statement

log = structlog.get_logger()


class _Submitted(Waiting[SubmissionCall]):
    def __init__(self, ask: SubmissionCall) -> None:
        super().__init__(ask)
        self.fits: bool | None = None  # its user's limit; None: it is not counted yet
        self.counted: list[rate_limit.Taken] = []
        self.tries = 0

    @property
    def may_try_again(self) -> bool:
        return self.tries < min(TRIES, MOST_BYTES / len(self.ask.submission.payload))


class GroupCommit(Together[SubmissionCall]):
    """Where the requests of a process bring what they want accepted."""

    name = "group-commit"

    async def accept(self, ask: SubmissionCall) -> tuple[Accepted, list[rate_limit.Taken]] | None:
        """Its place in line, kept once this returns, and what it left of the limit. None: nothing was done or counted.

        Raises django.db.Error when nobody knows whether it was accepted.
        """
        waiting = _Submitted(ask)
        answer = await self.bring(waiting)
        return None if answer is None else (answer, waiting.counted)

    def serve(self, group: list[Waiting[SubmissionCall]]) -> None:
        asked = [one for one in group if isinstance(one, _Submitted)]
        accepted, later = self._accept(self._fitting(asked))
        for one in asked:
            one.answer = accepted.get(one.ask.submission.id)
            one.again = one.ask.submission.id in later and one.may_try_again
            if one.answer is None and not one.again:
                rate_limit.give_back(one.counted)

    def committed(self, served: list[Waiting[SubmissionCall]]) -> None:
        accepted = [one.answer for one in served if isinstance(one.answer, Accepted)]
        for kept in accepted:
            changed(kept.queue_id)
        if accepted:
            hints.work_waits()

    def left(self, unserved: list[Waiting[SubmissionCall]]) -> None:
        for one in unserved:
            rate_limit.give_back(one.counted if isinstance(one, _Submitted) else [])

    def _fitting(self, group: list[_Submitted]) -> list[_Submitted]:
        """Those that fit their user's limit, and are counted from now on."""
        new = [one for one in group if one.fits is None]
        counted = rate_limit.count_each([rate_limit.SUBMIT.claim(str(one.ask.user_id)) for one in new]) if new else []
        for one, (fits, taken) in zip(new, counted, strict=True):
            one.fits, one.counted = fits, taken if fits else []
        return [one for one in group if one.fits]

    def _accept(self, group: list[_Submitted]) -> TakenTogether:
        """What of it could be accepted together. Raises django.db.Error when nobody knows."""
        if not group:
            return TakenTogether({}, set())
        for one in group:
            one.tries += 1
        try:
            return accept_together([one.ask for one in group])
        except DatabaseError as failure:
            # Only what PostgreSQL itself refused is known not to be kept. Each goes on alone, and gets its own answer.
            if isinstance(failure, OperationalError) or not getattr(failure.__cause__, "sqlstate", None):
                raise
            log.warning("group_refused", requests=len(group), error=str(failure).strip().splitlines()[:1])
            return TakenTogether({}, set())
