"""What PostgreSQL itself saw: triggers of chaos' own write down every final outcome and every lease, as committed."""

from dataclasses import dataclass
from typing import Any

import psycopg

SCHEMA = """
CREATE TABLE chaos_effect (request uuid, attempt int);

CREATE TABLE chaos_final (
    n bigserial, at timestamptz DEFAULT clock_timestamp(), tx xid8 DEFAULT pg_current_xact_id(),
    request uuid, queue bigint, seq bigint, status text, run text);
CREATE FUNCTION chaos_final() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO chaos_final (request, queue, seq, status, run)
    VALUES (NEW.id, NEW.queue_id, NEW.seq, NEW.status,
            CASE WHEN json_typeof(NEW.result::json) = 'object' THEN NEW.result::json ->> 'run' END);
    RETURN NULL;
END $$;
CREATE TRIGGER chaos_final AFTER UPDATE ON queues_request FOR EACH ROW
    WHEN (NEW.finished_at IS NOT NULL AND (
        OLD.finished_at IS DISTINCT FROM NEW.finished_at OR OLD.status IS DISTINCT FROM NEW.status
        OR OLD.result::text IS DISTINCT FROM NEW.result::text))
    EXECUTE FUNCTION chaos_final();

CREATE TABLE chaos_lease (
    n bigserial, at timestamptz DEFAULT clock_timestamp(), queue bigint, old_fence bigint, fence bigint,
    old_state text, state text, old_until timestamptz);
CREATE FUNCTION chaos_lease() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO chaos_lease (queue, old_fence, fence, old_state, state, old_until)
    VALUES (NEW.id, OLD.fence, NEW.fence, OLD.state, NEW.state, OLD.lease_until);
    RETURN NULL;
END $$;
CREATE TRIGGER chaos_lease AFTER UPDATE ON queues_userqueue FOR EACH ROW
    WHEN (OLD.fence <> NEW.fence OR OLD.state <> NEW.state) EXECUTE FUNCTION chaos_lease();
"""

DONE = "SELECT coalesce(sum(done_seq), 0) FROM queues_userqueue"
NOT_IDLE = "SELECT count(*) FROM queues_userqueue WHERE state <> 'idle' OR last_seq <> done_seq"
SCHEDULED = "SELECT count(*) FROM queues_request WHERE status = 'scheduled'"


@dataclass(frozen=True)
class Row:
    """A request as it stands at the end. Times are seconds on the monotonic clock here and below."""

    id: str
    user: str
    queue: int
    seq: int | None
    kind: str
    status: str
    attempt: int
    created: float
    finished: float | None
    retry: bool
    request_in_result: str | None
    trace: str = ""


@dataclass(frozen=True)
class Final:
    """One moment at which a request's outcome was written; `tx` is the transaction, `run` whose result it is."""

    at: float
    tx: int
    request: str
    queue: int
    seq: int | None
    status: str
    run: str | None


@dataclass(frozen=True)
class Moved:
    """A queue's fence or state moved."""

    at: float
    queue: int
    old_fence: int
    fence: int
    old_state: str
    state: str
    old_until: float | None


@dataclass(frozen=True)
class Seen:
    rows: list[Row]
    finals: list[Final]
    moves: list[Moved]
    effects: list[str]  # the request of each row that an atomic handler wrote


def read(database: psycopg.Connection, offset: float) -> Seen:
    """All of it. `offset` is what the wall clock is ahead of the monotonic one."""

    def ask(query: str) -> list[tuple[Any, ...]]:
        return database.execute(query).fetchall()

    def at(column: str) -> str:
        return f"(extract(epoch FROM {column}) - {offset!r})::float8"

    rows = ask(f"""
        SELECT r.id::text, q.user_id::text, q.id, r.seq, r.kind, r.status, r.attempt, {at("r.created_at")},
               {at("r.finished_at")}, r.retry_of_id IS NOT NULL,
               CASE WHEN json_typeof(r.result::json) = 'object' THEN r.result::json ->> 'request' END, r.trace
        FROM queues_request r JOIN queues_userqueue q ON q.id = r.queue_id
    """)
    finals = ask(f"""
        SELECT {at("at")}, tx::text::bigint, request::text, queue, seq, status, run FROM chaos_final ORDER BY n
    """)
    moves = ask(f"""
        SELECT {at("at")}, queue, old_fence, fence, old_state, state, {at("old_until")} FROM chaos_lease ORDER BY n
    """)
    effects = ask("SELECT request::text FROM chaos_effect")
    return Seen(
        [Row(*row) for row in rows],
        [Final(*row) for row in finals],
        [Moved(*row) for row in moves],
        [request for (request,) in effects],
    )
