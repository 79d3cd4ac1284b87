"""What tracing costs: off, the hooks themselves; on, submissions and attempts beside the same with it off.

`python -m bench.alone.tracing PORT` is the collector that takes the spans and forgets them.
"""

import json
import sys
import time
import timeit
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from statistics import median
from typing import NamedTuple

from accounts.models import Session, User
from bench.load import drive, post
from bench.loads.accept import BODY, listening
from bench.place import Place, wait_for
from bench.report import Report, rate, ratio
from bench.users import users
from project.telemetry import tracing
from scripts.place import free_port
from scripts.run.application import services

USERS = 100
HOOKS = 3  # on the way of one request: it is accepted, its attempt runs, its lines are logged
LOOKS = 2_000_000
UNFINISHED = "SELECT count(*) FROM queues_request WHERE finished_at IS NULL"


class Speed(NamedTuple):
    """Requests a second: until all are accepted, and until all have ended."""

    accepted: float
    finished: float


def run(here: Place, report: Report, name: str, quick: bool) -> None:
    """Rounds of both in turns, each with processes of its own, after a load that only warms up."""
    count, rounds = (1_000, 1) if quick else (2_000, 5)
    collector_port = free_port()
    collector = here.start("collector", [sys.executable, "-m", "bench.alone.tracing", str(collector_port)])
    on = {
        "TRACING": "true",
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector_port}",
        "OTEL_BSP_MAX_QUEUE_SIZE": "65536",  # so that none is dropped to be fast
    }
    found: dict[str, list[Speed]] = {"off": [], "on": []}
    for number in range(rounds):
        for mode, environment in [("off", {}), ("on", on)][:: 1 if number % 2 == 0 else -1]:
            found[mode].append(_measured(here, count, environment))
    here.stop(collector)
    report.raw["tracing"] = {mode: [speed._asdict() for speed in speeds] for mode, speeds in found.items()}
    _tell(report, found)


def _tell(report: Report, found: dict[str, list[Speed]]) -> None:
    table = report.table("tracing: submissions over HTTP, and until all have ended", "", "accepted/s", "finished/s")
    for mode, speeds in found.items():
        table.add_row(mode, *(rate(median(column)) for column in zip(*speeds, strict=True)))
    beside = [
        median(on[column] / off[column] for on, off in zip(found["on"], found["off"], strict=True))
        for column in range(2)
    ]
    table.add_row("on beside off", *map(ratio, beside))
    report.show(table)
    look = hook_seconds()
    share = HOOKS * look * median(speed.finished for speed in found["off"])
    report.say(f"Off, a hook takes {look * 1e9:.0f} ns: {HOOKS} of them are {share:.5%} of a request's time.")
    report.verdict("tracing off: 0.1 % of a request's time beside its hooks", 0.001 / share, 1.0)


def hook_seconds() -> float:
    """What it takes to find out that nobody traces, without what the loop takes."""
    looked = min(timeit.repeat("tracing.tracer is None", globals={"tracing": tracing}, number=LOOKS, repeat=5))
    return max(1e-9, (looked - min(timeit.repeat("pass", number=LOOKS, repeat=5))) / LOOKS)


def _measured(here: Place, count: int, environment: dict[str, str]) -> Speed:
    port = free_port()
    processes = [here.start(service.name, service.command, **environment) for service in services(port)]
    here.empty()
    submitters = User.objects.filter(id__in=users(here, "traced", USERS))
    body = json.dumps(BODY).encode()
    requests = [post("/api/v1/requests", Session.open(user).access, body) for user in submitters]
    listening(port, "/api/v1/requests")
    _driven(here, port, requests * (count // 4 // USERS))
    speed = _driven(here, port, requests * (count // USERS))
    here.stop(*processes)
    return speed


def _driven(here: Place, port: int, requests: list[bytes]) -> Speed:
    began = time.perf_counter()
    load = drive(port, requests)
    if load.accepted != len(requests):
        raise RuntimeError(f"submissions were answered {dict(load.statuses)}")
    wait_for(lambda: here.one(UNFINISHED) == 0, "all have ended", 120)
    return Speed(load.rate, len(requests) / (time.perf_counter() - began))


class Forgets(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Forgets).serve_forever()
