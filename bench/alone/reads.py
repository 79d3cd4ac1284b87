"""How fast what users ask most often is read over HTTP, beside how fast submissions are accepted by the same processes.

All get the same load from the same generator in turns: 16 kept connections, tokens of a hundred users. Every user has
50 finished requests, whose payload and result are of ordinary size. No workers run, so that reads have both cores.
"""

import json
from collections.abc import Callable
from itertools import cycle, islice
from statistics import median

from accounts.models import Session, User
from bench.load import Load, drive, post
from bench.loads.accept import BODY, listening
from bench.place import Place
from bench.report import Report, milliseconds, rate, ratio
from bench.users import users
from queues.enqueue.accept import accept
from queues.kinds import find
from queues.models import Request
from queues.values import Submission
from scripts.place import free_port
from scripts.run.application import services

USERS = 100
EACH = 50  # finished requests of a user: a page
POST, FINAL, LIST, KINDS = "POST /requests", "GET /requests/{id}, final", "GET /requests, 50 of them", "GET /kinds"
EXPECTED = {FINAL: 1.2, LIST: 0.5, KINDS: 2.0}  # of what POST does

FINISH = """
    WITH final AS (
        UPDATE queues_request SET status = 'succeeded', attempt = 1, result = payload, started_at = created_at,
               finished_at = now() WHERE finished_at IS NULL
    )
    UPDATE queues_userqueue SET done_seq = last_seq, published_seq = last_seq WHERE last_seq > done_seq
"""


def run(here: Place, report: Report, name: str, quick: bool) -> None:
    """Rounds of all reads and of submissions in turns, after one that only warms up."""
    count, rounds = (500, 3) if quick else (2_000, 9)
    port = free_port()
    api = here.start("api", next(one.command for one in services(port) if one.name == "api"))
    here.empty()
    loads = _loads(here)
    listening(port, "/api/v1/requests")
    found: dict[str, list[Load]] = {name: [] for name in loads}
    for turn in range(rounds + 1):
        for what, requests in list(loads.items())[turn % len(loads) :] + list(loads.items())[: turn % len(loads)]:
            load = drive(port, list(islice(cycle(requests), count)))
            if load.accepted != count:
                raise RuntimeError(f"{what} was answered {dict(load.statuses)}")
            if turn:
                found[what].append(load)
    here.stop(api)
    _tell(report, found, count)


def _loads(here: Place) -> dict[str, list[bytes]]:
    """By what is asked: the requests of every user, as they go over the wire."""
    kind, payload = find(BODY["kind"], 1), json.dumps(BODY["payload"])
    callers = []
    for user in User.objects.filter(id__in=users(here, "reads", USERS)):
        accept(user.id, [Submission(kind, payload) for _ in range(EACH)], session_id=None)
        callers.append((user.id, Session.open(user).access))
    here.sql.execute(FINISH)
    here.sql.execute("VACUUM ANALYZE queues_request, queues_userqueue, accounts_session")
    own = {user: list(Request.objects.filter(queue__user=user).values_list("id", flat=True)) for user, _ in callers}
    # Each user's first, each user's second ..: neighbours in a round are different users'.
    final = [get(f"/api/v1/requests/{own[user][n]}", token) for n in range(EACH) for user, token in callers]

    def of_each(path: str) -> list[bytes]:
        return [get(path, token) for _, token in callers]

    submitters = User.objects.filter(id__in=users(here, "submits", USERS))  # whose lists nobody reads
    body = json.dumps(BODY).encode()
    return {
        POST: [post("/api/v1/requests", Session.open(user).access, body) for user in submitters],
        FINAL: final,
        LIST: of_each("/api/v1/requests"),
        KINDS: of_each("/api/v1/kinds"),
        "GET /queue": of_each("/api/v1/queue"),
    }


def get(path: str, token: str) -> bytes:
    """An HTTP/1.1 request as it goes over the wire."""
    return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token}\r\n\r\n".encode()


def _tell(report: Report, found: dict[str, list[Load]], count: int) -> None:
    table = report.table(
        f"reads: {count:,} requests a round over 16 connections, medians of {len(found[POST])} rounds",
        "", "requests/s", "p50", "p99", "beside POST",
    )  # fmt: skip

    def middle(loads: list[Load], of: Callable[[Load], float]) -> float:
        return median(of(load) for load in loads)

    for what, loads in found.items():
        beside = median(load.rate / post.rate for load, post in zip(loads, found[POST], strict=True))
        p50, p99 = (milliseconds(middle(loads, lambda load, at=at: load.percentile(at))) for at in (50, 99))  # type: ignore[misc]
        table.add_row(what, rate(middle(loads, lambda load: load.rate)), p50, p99, ratio(beside))
        if what in EXPECTED:
            report.verdict(f"{what}, beside POST", beside, EXPECTED[what])
    report.show(table)
