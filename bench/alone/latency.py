"""How long a single quiet user waits from accepted to finished, alone and beside users who flood.

Both times are the database's: a request's `created_at` is taken when it is accepted, before its 202 leaves.
"""

import time
from dataclasses import dataclass
from functools import partial
from uuid import UUID

from bench.place import Place, wait_for
from bench.report import Report, milliseconds
from bench.users import backlog, echoes, users, waiting
from queues.enqueue.accept import accept
from queues.notify import hints

EVERY = 0.02  # seconds between two requests of the quiet user
AGAIN = 200  # requests of a flooding user, as soon as it has fewer waiting


@dataclass
class Waits:
    """Of so many requests, the median and the 99th percentile in seconds."""

    count: int
    p50: float
    p99: float


def run(here: Place, report: Report, name: str, quick: bool) -> None:
    """The same quiet user alone, beside one who floods, and beside more of them than there are worker threads."""
    count = 20 if quick else 100
    (quiet,) = users(here, "quiet", 1)
    flooding = users(here, "flood", 32)
    table = report.table("latency: from accepted to finished, for one quiet user", "beside", "requests", "p50", "p99")
    alone = None
    for what, flooders in (("nobody", 0), ("one who floods", 1), ("32 who flood", 32)):
        dispatcher = here.manage("dispatcher", "dispatch")
        workers = here.manage("workers", "work", "--processes", "2", "--threads", "8")
        backlog(flooding, 640)
        wait_for(lambda: waiting(here) == 0, "warm workers")
        found = measure(here, quiet, count, while_waiting=flooding[:flooders])
        here.stop(workers, dispatcher)
        here.empty()  # what is left of the flood
        report.say(f"latency beside {what}: done")
        table.add_row(what, str(found.count), milliseconds(found.p50), milliseconds(found.p99))
        alone = alone or found
        if flooders == 1:
            report.verdict("latency: p50 beside one who floods", found.p50 / alone.p50, None)
    report.show(table)


def measure(here: Place, quiet: UUID, count: int, while_waiting: list[UUID] | None = None) -> Waits:
    """Requests of the quiet user one after the other, while all the others have some waiting: they get more."""
    here.sql.execute(
        "DELETE FROM queues_request USING queues_userqueue q WHERE q.id = queue_id AND q.user_id = %s", [quiet]
    )
    asked = 0
    while asked < count:
        _flood_on(here, while_waiting or [])
        (accepted,) = accept(quiet, echoes(1), session_id=None)
        hints.work_waits()
        asked += 1
        finished = "SELECT finished_at FROM queues_request WHERE id = %s"
        wait_for(partial(here.one, finished, accepted.submission.id), "the quiet user's request", every=0.002)
        time.sleep(EVERY)
    row = here.sql.execute(
        "SELECT percentile_cont(ARRAY[0.5, 0.99]) WITHIN GROUP (ORDER BY extract(epoch FROM finished_at - created_at))"
        " FROM queues_request r JOIN queues_userqueue q ON q.id = r.queue_id WHERE q.user_id = %s",
        [quiet],
    ).fetchone()
    assert row is not None
    return Waits(asked, *row[0])


def _flood_on(here: Place, flooding: list[UUID]) -> None:
    """Who has few waiting asks for more, so that the flood lasts for as long as the quiet user asks."""
    for (user,) in here.sql.execute(
        "SELECT user_id FROM queues_userqueue WHERE user_id = ANY(%s) AND last_seq - done_seq < %s", [flooding, AGAIN]
    ).fetchall():
        backlog([user], AGAIN)
