"""How fast requests are accepted over HTTP, beside two stacks that only hand a job to a broker.

Everyone gets the same load from the same generator in turns: 16 kept connections, a token checked for each request, the
same body; no workers on any side. Ours also runs its dispatcher, because what was accepted has yet to reach RabbitMQ.
"""

import json
import secrets
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from itertools import cycle, islice
from statistics import median

import jwt

from accounts.models import Session, User
from bench.load import Load, drive, post
from bench.peers.base import Unavailable
from bench.peers.node import script
from bench.place import Place, wait_for
from bench.report import Report, milliseconds, rate, ratio
from bench.users import users
from scripts.place import free_port
from scripts.run.application import services
from scripts.servers.process import Process

USERS = 100
SECRET = secrets.token_hex(32)
FASTAPI, EXPRESS = "FastAPI + Celery", "Express + BullMQ"  # bare: one process, as each starts by itself
BODY = {"kind": "demo.echo", "payload": {"order": 1, "text": "a request of ordinary size", "tags": ["one", "two"]}}


@dataclass
class Side:
    """One of those compared: where it listens, the requests it gets, and what came of each round."""

    name: str
    port: int
    requests: list[bytes]
    processes: list[Process]
    rounds: list[Load] = field(default_factory=list)

    def load(self, count: int) -> Load:
        """Drive `count` requests. Raises RuntimeError when not all are accepted."""
        load = drive(self.port, list(islice(cycle(self.requests), count)))
        if load.accepted != count:
            raise RuntimeError(f"{self.name} answered {dict(load.statuses)}")
        return load

    @property
    def rate(self) -> float:
        return median(load.rate for load in self.rounds)

    def percentile(self, percent: int) -> float:
        return median(load.percentile(percent) for load in self.rounds)


def run(here: Place, report: Report, name: str, quick: bool) -> None:
    """Rounds of all sides in turns, after one that only warms up; then batches beside single requests."""
    count, rounds = (1_000, 2) if quick else (3_000, 7)
    ours = _ours(here)
    sides = [ours, *_fastapi(here), *_express(here, report)]
    for side in sides:
        side.load(count // 2)
    for _ in range(rounds):
        for side in sides:
            side.rounds.append(side.load(count))
    batches = [_batches(ours) for _ in range(rounds)]
    for side in sides:
        here.stop(*side.processes)
    report.raw["accept"] = {side.name: [load.rate for load in side.rounds] for side in sides}
    report.chart("accept, requests/s", report.raw["accept"])
    _tell(report, ours, sides, count)
    _tell_batches(report, ours, batches)


def _tell(report: Report, ours: Side, sides: list[Side], count: int) -> None:
    table = report.table(
        f"accept: {count:,} requests a round over 16 connections, medians of {len(ours.rounds)} rounds",
        "", "requests/s", "p50", "p99", "p99 / p50", "ours is",
    )  # fmt: skip
    for side in sides:
        tail = median(load.percentile(99) / load.percentile(50) for load in side.rounds)
        ahead = "" if side is ours else ratio(ahead_of(ours, side))
        p50, p99 = milliseconds(side.percentile(50)), milliseconds(side.percentile(99))
        table.add_row(side.name, rate(side.rate), p50, p99, f"{tail:.1f}", ahead)
    report.show(table)
    for rival, expected in ((FASTAPI, 4.0), (EXPRESS, 1.2)):
        bare, *others = [side for side in sides if side.name.startswith(rival)] or [ours]
        if others:
            report.verdict(f"accept beside {bare.name}", ahead_of(ours, bare), expected)
            fastest = max(others, key=lambda side: side.rate)
            report.verdict(f"accept beside {fastest.name}", ahead_of(ours, fastest), 1.0)
    tail = median(5 * load.percentile(50) / load.percentile(99) for load in ours.rounds)
    report.verdict("accept: 5 x p50 beside p99", tail, 1.0)


def ahead_of(ours: Side, other: Side) -> float:
    """How many times as fast, round by round."""
    return median(our.rate / their.rate for our, their in zip(ours.rounds, other.rounds, strict=True))


def _batches(ours: Side) -> tuple[float, float]:
    """Requests a second, singly and in batches of 500, one after the other."""
    single = ours.load(1_000)
    head, _, body = ours.requests[0].partition(b"\r\n\r\n")
    token = head.partition(b"Bearer ")[2].partition(b"\r\n")[0].decode()
    batch = json.dumps({"requests": [json.loads(body)] * 500}).encode()
    many = drive(ours.port, [post("/api/v1/requests/batch", token, batch)] * 32)
    if many.accepted != 32:
        raise RuntimeError(f"batches were answered {dict(many.statuses)}")
    return single.rate, 500 * many.rate


def _tell_batches(report: Report, ours: Side, batches: list[tuple[float, float]]) -> None:
    table = report.table("accept: batches of 500", "", "requests/s")
    table.add_row("single", rate(median(single for single, _ in batches)))
    table.add_row("in batches", rate(median(many for _, many in batches)))
    report.show(table)
    report.verdict("accept in batches of 500 beside single", median(many / single for single, many in batches), 8.0)


def _ours(here: Place) -> Side:
    """The API and the dispatcher as `./run up` starts them."""
    port = free_port()
    wanted = {service.name: service.command for service in services(port)}
    processes = [here.start(name, wanted[name]) for name in ("api", "dispatcher")]
    here.empty()
    submitters = User.objects.filter(id__in=users(here, "accept", USERS))
    body = json.dumps(BODY).encode()
    requests = [post("/api/v1/requests", Session.open(user).access, body) for user in submitters]
    listening(port, "/api/v1/requests")
    return Side("this project", port, requests, processes)


def _fastapi(here: Place) -> list[Side]:
    """Bare: uvicorn as it starts by itself, without its extras. Then two processes with them, async or not, no log."""
    sides: list[Side] = []
    two = ["--workers", "2", "--no-access-log", "--log-level", "warning"]
    for name, arguments, variables in (
        (f"{FASTAPI}, bare", ["--loop", "asyncio", "--http", "h11"], {}),
        (f"{FASTAPI}, two processes", two, {}),
        (f"{FASTAPI}, two processes, async", two, {"BENCH_ASYNC": "1"}),
    ):
        port = free_port()
        command = [sys.executable, "-m", "uvicorn", "bench.peers.fastapi_celery:app", "--port", str(port), *arguments]
        process = here.start(f"fastapi-{len(sides)}", command, BENCH_SECRET=SECRET, **variables)
        listening(port, "/requests")
        sides.append(Side(name, port, _rival_requests(), [process]))
    return sides


def _express(here: Place, report: Report) -> list[Side]:
    """Bare: one process of Node; and two. None where Node is not installed."""
    try:
        command = script("express_bullmq")
    except Unavailable as why:
        report.note(f"Express + BullMQ is left out: {why}")
        return []
    sides = []
    for name, workers in ((f"{EXPRESS}, bare", "1"), (f"{EXPRESS}, two processes", "2")):
        port = free_port()
        variables = {"BENCH_SECRET": SECRET, "PORT": str(port), "WORKERS": workers, "NODE_ENV": "production"}
        process = here.start(f"express-{workers}", command, **variables)
        listening(port, "/requests")
        sides.append(Side(name, port, _rival_requests(), [process]))
    return sides


def _rival_requests() -> list[bytes]:
    body = json.dumps(BODY).encode()
    return [post("/requests", token, body) for token in rival_tokens(USERS)]


def rival_tokens(count: int) -> list[str]:
    """Tokens of as many users, which carry as much as ours do."""
    now = int(time.time())
    claims = {"token_type": "access", "iss": "bench", "aud": "bench", "iat": now, "exp": now + 3600}
    made = []
    for _ in range(count):
        own = {"jti": secrets.token_hex(16), "sub": secrets.token_hex(18), "sid": secrets.token_hex(18)}
        made.append(jwt.encode({**claims, **own}, SECRET, "HS256"))
    return made


def listening(port: int, path: str) -> None:
    """Wait until a submission without a token is refused: it listens, and it checks tokens."""

    def refused() -> bool:
        body = json.dumps(BODY).encode()
        asked = urllib.request.Request(f"http://127.0.0.1:{port}{path}", body, {"Content-Type": "application/json"})
        try:
            urllib.request.urlopen(asked, timeout=5).close()
        except urllib.error.HTTPError as error:
            return error.code == 401
        except OSError:
            return False
        raise RuntimeError(f"port {port} accepts what has no token")

    wait_for(refused, f"401 on port {port}", every=0.1)
