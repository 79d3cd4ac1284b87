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
FLOOD = 20_000


@dataclass
class Waits:
    """Of so many requests, the median and the 99th percentile in seconds."""

    count: int
    p50: float
    p99: float


def run(here: Place, report: Report, name: str, quick: bool) -> None:
    """The same quiet user alone, beside one who floods, and beside more of them than there are worker threads."""
    count = 50 if quick else 300
    dispatcher = here.manage("dispatcher", "dispatch")
    workers = here.manage("workers", "work", "--processes", "2", "--threads", "8")
    (quiet,) = users(here, "quiet", 1)
    flooding = users(here, "flood", 32)
    backlog(flooding, 3_200)
    wait_for(lambda: waiting(here) == 0, "warm workers")
    table = report.table("latency: from accepted to finished, for one quiet user", "beside", "requests", "p50", "p99")
    alone = measure(here, quiet, count)
    table.add_row("nobody", str(alone.count), milliseconds(alone.p50), milliseconds(alone.p99))
    for flooders in (1, 32):
        backlog(flooding[:flooders], FLOOD * (1 if flooders == 1 else 2))
        beside = measure(here, quiet, count, while_waiting=flooding[:flooders])
        what = "one who floods" if flooders == 1 else f"{flooders} who flood"
        table.add_row(what, str(beside.count), milliseconds(beside.p50), milliseconds(beside.p99))
        wait_for(lambda: waiting(here) == 0, "the flood's end", seconds=300, every=0.1)
        if flooders == 1:
            report.verdict("latency: p50 beside one who floods", beside.p50 / alone.p50, None)
    here.stop(workers, dispatcher)
    report.show(table)


def measure(here: Place, quiet: UUID, count: int, while_waiting: list[UUID] | None = None) -> Waits:
    """Requests of the quiet user one after the other, as long as all the others have some waiting."""
    here.sql.execute(
        "DELETE FROM queues_request USING queues_userqueue q WHERE q.id = queue_id AND q.user_id = %s", [quiet]
    )
    asked = 0
    while asked < count and (not while_waiting or _flooded(here, while_waiting)):
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
    if row[0] is None:
        raise TimeoutError("the flood was over before the quiet user asked")
    return Waits(asked, *row[0])


def _flooded(here: Place, flooding: list[UUID]) -> bool:
    row = here.one("SELECT bool_and(last_seq > done_seq) FROM queues_userqueue WHERE user_id = ANY(%s)", flooding)
    return bool(row)
