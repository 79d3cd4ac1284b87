"""What the admin's pages and the API's lists take with a million users and ten million requests."""

import time
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from accounts.models import Session, User
from bench.place import Place
from bench.report import Report, milliseconds
from queues.models import Request, UserQueue

ROUNDS = 7
SLOWEST = 0.3  # seconds, of an admin page
LARGE = ("accounts_user", "accounts_session", "accounts_securityevent", "queues_userqueue", "queues_request")
DEEP, WAITING = 100_000, 1000  # requests of the first user, and how many of them wait; each other one has ten

# A UUID version 7 of a moment.
ID = (
    "(lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') || '7' || substr(md5(n::text), 1, 3)"
    " || '8' || substr(md5(n::text), 4, 15))::uuid"
)
ERROR = '{"type": "ValueError", "message": "x", "at": "2026-01-01T00:00:00+00:00"}'
USER = "('00000000-0000-7000-8000-' || lpad(to_hex({}), 12, '0'))::uuid"


@dataclass
class Taken:
    """What one page took, in seconds, and which statements of it read a large table as a whole."""

    first: float
    typical: float
    whole: list[str]


def run(here: Place, report: Report, name: str, quick: bool) -> None:
    """Fill the tables, and ask for every page."""
    users, requests = (10_000, 100_000) if quick else (1_000_000, 10_000_000)
    began = time.perf_counter()
    base = fill(here, users, requests)
    report.say(f"filled within {time.perf_counter() - began:,.0f} s: {here.one(SIZE)}")
    slowest = 0.0
    staff, user = operator(), owner(base)
    for title, client, pages in (
        ("admin", staff, {path: {} for path in admin_pages(base)} | confirmations()),
        ("API", user, {path: {} for path in api_pages()}),
    ):
        table = report.table(
            f"pages: {title}, {users:,} users, {requests:,} requests", "", "first", "median", "reads all"
        )
        table.columns[0].overflow, table.columns[0].min_width = "fold", 44
        for path, sent in pages.items():
            taken = measure(client, path, sent)
            said = f"{path} {sent['action']} all" if sent else path
            table.add_row(said, milliseconds(taken.first), milliseconds(taken.typical), ", ".join(taken.whole) or "-")
            slowest = max(slowest, taken.typical) if client is staff else slowest
        report.show(table)
    report.verdict("pages: 300 ms beside the slowest page of the admin", SLOWEST / slowest, 1.0)


def measure(client: Client, path: str, sent: dict[str, str]) -> Taken:
    """Ask for it several times, by POST if something is sent. Raises RuntimeError when it is not answered."""
    ask = partial(client.post, path, sent) if sent else partial(client.get, path)
    times = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        answer = ask()
        times.append(time.perf_counter() - began)
        if answer.status_code != 200:
            raise RuntimeError(f"{path} answered {answer.status_code}")
    with CaptureQueriesContext(connection) as asked:
        ask()
    whole = {table for query in asked for table in read_whole(query["sql"])}
    return Taken(times[0], median(times[1:]), sorted(whole))


def read_whole(sql: str) -> list[str]:
    """The large tables that PostgreSQL would read from beginning to end for this."""
    if not sql.startswith("SELECT"):
        return []
    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN {sql.replace('%', '%%')}", [])
        plan = "\n".join(row[0] for row in cursor.fetchall())
    return [table for table in LARGE if f"Seq Scan on {table}" in plan]


def operator() -> Client:
    client = Client(SERVER_NAME="localhost")
    client.force_login(User.objects.create_superuser("pages-operator"))
    return client


def owner(base: int) -> Client:
    """The API as the user with the deepest queue."""
    user = UserQueue.objects.select_related("user").get(id=base + 1).user
    return Client(SERVER_NAME="localhost", headers={"Authorization": f"Bearer {Session.open(user).access}"})


def admin_pages(base: int) -> list[str]:
    deep = UserQueue.objects.get(id=base + 1)
    queues, requests = "/admin/queues/userqueue/", "/admin/queues/request/"
    one = Request.objects.filter(queue=deep).order_by("seq")[5].pk
    found = [
        f"?q={term}"
        for term in ("page-7777", "page-77", "page-7", "page-7777@example.com", "nobody", str(deep.user_id))
    ]
    pages = ["/admin/", "/admin/board", queues, f"{queues}?p=100", f"{queues}{base + 1}/change/"]
    pages += [f"{queues}{base + 1}/change/?after={DEEP - 500}", f"{queues}?paused__exact=1"]
    pages += [f"{queues}?state={state}" for state in ("idle", "ready", "draining", "waiting", "blocked")]
    pages += [f"{queues}{term}" for term in found]
    pages += [requests, f"{requests}?p=100", f"{requests}{one}/change/", f"{requests}?q={one}"]
    statuses = ("scheduled", "queued", "running", "retrying", "succeeded", "failed", "cancelled", "expired")
    pages += [f"{requests}?status={status}" for status in statuses]
    pages += [f"{requests}?status={status}&kind=demo.flaky" for status in ("queued", "succeeded", "failed")]
    pages += [f"{requests}?kind={kind}" for kind in ("demo.echo", "demo.flaky", "http.call")]
    pages += [f"{requests}?created={span}" for span in ("hour", "day", "week")]
    pages += [f"{requests}?status=queued&created=hour", f"{requests}?status=succeeded&created=day"]
    pages += [f"{requests}{term}" for term in found]
    pages += [f"{requests}{term}&status=queued" for term in found[:3]]
    users, sessions, events = "/admin/accounts/user/", "/admin/accounts/session/", "/admin/accounts/securityevent/"
    pages += [users, f"{users}?is_staff__exact=1", f"{users}?is_active__exact=0", f"{users}?is_superuser__exact=1"]
    pages += [f"{users}{deep.user_id}/change/", *(f"{users}{term}" for term in found)]
    pages += [sessions, f"{sessions}?ended_at__isempty=1", f"{sessions}?ended_at__isempty=0"]
    pages += [f"{sessions}{term}" for term in found]
    pages += [events, f"{events}?event=login_failed", f"{events}?event=erased", f"{events}?within=hour"]
    pages += [f"{events}{term}" for term in (*found, "?q=192.0.2.1")]
    return [*pages, "/admin/queues/operatoraction/", "/admin/auth/group/"]


def confirmations() -> dict[str, dict[str, str]]:
    """The pages that ask before something is done to all that a list shows, by the address of the list."""
    queues, requests = "/admin/queues/userqueue/", "/admin/queues/request/"
    asked = {
        f"{queues}?state=idle": "pause",
        f"{queues}?state=ready": "purge",
        f"{queues}?q=page-77": "retry_failed",
        f"{requests}?kind=demo.flaky&status=failed": "retry",
        f"{requests}?status=queued": "cancel",
    }
    every = {"_selected_action": "0", "select_across": "1", "index": "0"}
    return {path: {"action": action, **every} for path, action in asked.items()}


def api_pages() -> list[str]:
    requests = "/api/v1/requests"
    old, new = "2020-01-01T00:00:00Z", "2100-01-01T00:00:00Z"
    pages = ["/api/v1/queue", requests, f"{requests}?limit=200", f"{requests}?order=asc"]
    statuses = ("scheduled", "queued", "running", "retrying", "succeeded", "failed", "cancelled", "expired")
    pages += [f"{requests}?status={status}" for status in statuses]
    pages += [f"{requests}?kind={kind}" for kind in ("demo.echo", "demo.flaky", "http.call")]
    pages += [f"{requests}?created_after={old}", f"{requests}?created_before={old}", f"{requests}?created_after={new}"]
    pages += [f"{requests}?created_before={new}&order=asc", f"{requests}?status=failed&kind=demo.flaky"]
    from queues.representation.pagination import Cursor

    for place in (DEEP // 2, 10):
        pages += [f"{requests}?cursor={Cursor(place)}", f"{requests}?cursor={Cursor(place)}&status=failed"]
    return pages


SIZE = (
    "SELECT 'the database has ' || pg_size_pretty(pg_database_size(current_database()))"
    " || ', queues_request ' || pg_size_pretty(pg_total_relation_size('queues_request'))"
)


def fill(here: Place, users: int, requests: int) -> int:
    """Users with ten requests each, over thirty days; the first with DEEP more. Each hundredth has five that wait.

    Returns the number below that of the first queue. Indexes are made afterwards, which is faster.
    """
    here.sql.execute("SET synchronous_commit = off")
    here.sql.execute("SET maintenance_work_mem = '512MB'")
    base: Any = here.one("SELECT coalesce(max(id), 0) FROM queues_userqueue")
    _people(here, users)
    here.sql.execute(
        f"""INSERT INTO queues_userqueue (id, user_id, last_seq, published_seq, done_seq, state, paused, wake_at,
                                          avg_service_seconds, claimed_at, lease_until, claimed)
            SELECT %s + n, {USER.format("n")}, 10, 10, CASE WHEN n %% 100 = 1 THEN 5 ELSE 10 END,
                   CASE WHEN n %% 100 <> 1 THEN 'idle' WHEN n %% 10000 = 101 THEN 'blocked'
                        WHEN n %% 10000 = 201 THEN 'waiting' WHEN n %% 10000 = 301 THEN 'draining' ELSE 'ready' END,
                   n %% 10000 = 7, CASE WHEN n %% 10000 = 201 THEN now() + interval '1 hour' END, 0.5,
                   now(), now() + interval '1 hour', 1
            FROM generate_series(1, %s) n""",
        [base, users],
    )
    here.sql.execute("SELECT setval(pg_get_serial_sequence('queues_userqueue', 'id'), %s)", [base + users])
    indexes = here.sql.execute(
        "SELECT indexrelid::regclass::text, pg_get_indexdef(indexrelid) FROM pg_index"
        " WHERE indrelid = 'queues_request'::regclass AND NOT indisprimary"
    ).fetchall()
    here.sql.execute(f"ALTER TABLE queues_request DROP CONSTRAINT {_foreign_key(here)}")
    for index, _ in indexes:
        here.sql.execute(f"DROP INDEX {index}")
    deep = min(DEEP, requests // 10)
    of_all = "seq > 5 AND queue_id % 100 = 1 AND queue_id > 1"
    _requests(here, f"1 + (n - 1) % {users}", f"1 + (n - 1) / {users}", of_all, base, requests)
    _requests(here, "1", "10 + n", f"n > {deep - WAITING}", base, deep)
    for _, definition in indexes:
        here.sql.execute(definition)
    here.sql.execute(
        "UPDATE queues_userqueue SET last_seq = 10 + %s, published_seq = 10 + %s, done_seq = 10 + %s WHERE id = %s + 1",
        [deep, deep, deep - WAITING, base],
    )
    here.sql.execute(
        "UPDATE queues_request r SET status = 'retrying', attempt = 1 FROM queues_userqueue q"
        " WHERE q.id = r.queue_id AND q.state IN ('waiting', 'blocked') AND r.seq = q.done_seq + 1"
    )
    here.sql.execute("VACUUM ANALYZE")
    return int(base)


def _foreign_key(here: Place) -> object:
    """To the queues: checking ten million times what is so anyway takes minutes."""
    return here.one(
        "SELECT conname FROM pg_constraint WHERE conrelid = 'queues_request'::regclass"
        " AND confrelid = 'queues_userqueue'::regclass"
    )


def _people(here: Place, users: int) -> None:
    """Users, each with a session and a line in the audit trail."""
    here.sql.execute(
        f"""INSERT INTO accounts_user (id, username, password, email, is_superuser, is_staff, is_active, created_at)
            SELECT {USER.format("n")}, 'page-' || n, '', 'page-' || n || '@example.com', false, false, true, now()
            FROM generate_series(1, %s) n""",
        [users],
    )
    here.sql.execute(
        f"""INSERT INTO accounts_session (id, user_id, address, user_agent, created_at, last_used_at, ended_at,
                                          refresh_jti)
            SELECT gen_random_uuid(), {USER.format("n")}, '192.0.2.1', 'x', now(), now(),
                   CASE WHEN n %% 2 = 0 THEN now() END, ''
            FROM generate_series(1, %s) n""",
        [users],
    )
    here.sql.execute(
        f"""INSERT INTO accounts_securityevent (at, event, user_id, address, user_agent, request_id, detail)
            SELECT now() - n * interval '2 s', 'login_succeeded', {USER.format("n")},
                   ('192.0.2.' || n %% 250)::inet, 'x', '', ''
            FROM generate_series(1, %s) n""",
        [users],
    )


def _requests(here: Place, queue: str, seq: str, waits: str, base: int, count: int) -> None:
    """`count` requests in the order of their time; of those that don't wait most succeeded."""
    here.sql.execute(
        f"""INSERT INTO queues_request (id, queue_id, seq, kind, version, payload, status, attempt, max_attempts,
                                        on_failure, result, error, trace, created_at, started_at, finished_at)
            SELECT {ID}, {base} + queue_id, seq, CASE WHEN n % 50 = 0 THEN 'demo.flaky' ELSE 'demo.echo' END, 1,
                   '{{"n": 1}}',
                   CASE WHEN waits THEN 'queued' WHEN n % 50 = 0 THEN 'failed' WHEN n % 200 = 1 THEN 'cancelled'
                        WHEN n % 200 = 2 THEN 'expired' ELSE 'succeeded' END,
                   0, 3, 'continue', CASE WHEN NOT waits THEN '{{"n": 1}}'::jsonb END,
                   CASE WHEN NOT waits AND n % 50 = 0 THEN '{ERROR}'::jsonb END, '',
                   at, CASE WHEN NOT waits THEN at END, CASE WHEN NOT waits THEN at + interval '1 s' END
            FROM (SELECT *, {waits} AS waits FROM (
                  SELECT n, {queue} AS queue_id, {seq} AS seq,
                         now() - interval '30 days' * (1 - n::float8 / {count}) AS at
                  FROM generate_series(1, {count}) n) made) told"""
    )
