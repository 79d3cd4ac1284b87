"""Pages of a queue's requests: a statement for each set of conditions, order and direction that a caller asks for."""

from enum import StrEnum
from functools import lru_cache
from typing import NamedTuple

from queues.sql.reads import REQUEST_COLUMNS, TEXT_COLUMNS
from queues.sql.statement import Statement

# What came at once has time and place in one order; so these are read from the index of times.
LAST_BEFORE = Statement("""
    SELECT seq FROM queues_request
    WHERE queue_id = %(queue)s AND not_before IS NULL AND seq IS NOT NULL AND created_at < %(moment)s
    ORDER BY created_at DESC LIMIT 1
""")
FIRST_AFTER = Statement("""
    SELECT seq FROM queues_request
    WHERE queue_id = %(queue)s AND not_before IS NULL AND seq IS NOT NULL AND created_at > %(moment)s
    ORDER BY created_at LIMIT 1
""")


class Where(StrEnum):
    """What the requests of a page may have to meet."""

    IN_LINE = "seq IS NOT NULL"
    BESIDE_LINE = "seq IS NULL"
    WAS_SCHEDULED = "not_before IS NOT NULL"
    AFTER_LAST = "seq > %(last)s"
    BEFORE_FIRST = "seq < %(first)s"
    AFTER_FIRST = "seq > %(first)s"
    HEAD = "seq = %(head)s"
    FROM_HEAD = "seq >= %(head)s"
    NOT_FINAL = "finished_at IS NULL"
    STATUS = "status = %(status)s"
    GIVEN_UP = "given_up = %(status)s"  # the same for what failed, was cancelled or expired: read from the small index
    KIND = "kind = %(kind)s"
    CREATED_AFTER = "created_at > %(created_after)s"
    CREATED_BEFORE = "created_at < %(created_before)s"


class PartOf(NamedTuple):
    """What a part of a page is read by: conditions, the column that orders it, and whether it begins at a place."""

    conditions: tuple[Where, ...]
    by: str
    beyond: bool


@lru_cache(512)
def page_statement(parts: tuple[PartOf, ...], downwards: bool) -> Statement:
    """The statement that reads a page: the first `most` rows of its parts, one part behind the other; the last column
    says which. Payloads and results become text outside, for what is on the page alone.

    There are as many statements as conditions can meet: some dozens.
    """
    way = " DESC" if downwards else ""
    in_order = f"ORDER BY r.part, r.seq{way}, r.id{way}"
    either = " UNION ALL ".join(f"({_part(n, part, downwards)})" for n, part in enumerate(parts))
    return Statement(f"""
        SELECT {REQUEST_COLUMNS}, {TEXT_COLUMNS}, r.part
        FROM (SELECT * FROM ({either}) r {in_order} LIMIT %(most)s) r {in_order}
    """)  # noqa: S608  (columns' names, and the parts below)


def _part(n: int, part: PartOf, downwards: bool) -> str:
    beyond = (f"{part.by} {'<' if downwards else '>'} %(beyond{n})s",) if part.beyond else ()
    where = " AND ".join(("queue_id = %(queue)s", *part.conditions, *beyond))
    return f"""
        SELECT r.*, {n} AS part FROM queues_request r
        WHERE {where} ORDER BY r.{part.by}{" DESC" if downwards else ""} LIMIT %(most)s
    """  # noqa: S608  (columns' names, and conditions written here)
