"""`./run up`: everything in the foreground with one log, until Ctrl-C."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from scripts.place import write_state
from scripts.run.application import (
    DISPATCHER_PORT,
    SMALL,
    WEBHOOKS_PORT,
    WORKER_PORT,
    choose_port,
    environment,
    extras,
    first_admin,
    migrate,
    readiness,
    services,
    unless_taken,
)
from scripts.run.crew import Crew, Printer
from scripts.run.runs import RUNS, alive
from scripts.servers import postgresql, servers
from scripts.servers.process import birth, signals_interrupt

TELL_AFTER = 30.0  # seconds without being ready, until the reason is printed


def main(_: list[str]) -> int:
    """Runs until it is told to stop; 0 then."""
    signals_interrupt()
    with recorded():
        port = choose_port()
        places = servers.find()
        postgresql.warn_when_full(places.database_url)
        variables = environment(places, SMALL)
        migrate(variables)
        admin = first_admin()
        table = services(port, unless_taken(DISPATCHER_PORT), unless_taken(WORKER_PORT), SMALL)
        table += extras(unless_taken(WEBHOOKS_PORT))
        crew = Crew(table, variables, Printer())
        try:
            address = f"http://127.0.0.1:{port}"
            print(f"page   {address}/\nAPI    {address}/api/v1/", flush=True)
            print(f"docs   {address}/api/docs\nadmin  {address}/admin/", flush=True)
            if admin:
                print("       user {}, password {} (shown only now)".format(*admin), flush=True)
            for service in table:
                print(f"       {service.name}: http://127.0.0.1:{service.port}/health/ready and /metrics", flush=True)
            run(crew, [service.port for service in table])
        except KeyboardInterrupt:
            print("stopping ..", flush=True)
            crew.stop()
        finally:
            crew.kill()
    print("stopped", flush=True)
    return 0


def run(crew: Crew, ports: list[int]) -> None:
    """Keeps the crew alive for ever; says once when everything works."""
    started = told = time.monotonic()
    ready, ask_again = False, 0.0
    while True:
        crew.tend()
        now = time.monotonic()
        if not ready and now >= ask_again:
            ready, answer = next(filter(not_ready, map(readiness, ports)), (True, ""))
            ask_again = time.monotonic() + 0.2
            if ready:
                print(f"ready  after {time.monotonic() - started:.1f} s; Ctrl-C stops everything", flush=True)
            elif now - told > TELL_AFTER:
                told = now
                print(f"not ready yet: {answer}", flush=True)
        time.sleep(0.1)


def not_ready(found: tuple[bool, str]) -> bool:
    return not found[0]


@contextmanager
def recorded() -> Iterator[None]:
    """Written down for as long as it runs, so that `./run stop` finds it. The last one ends servers started for it."""
    path = RUNS / f"{os.getpid()}.json"
    write_state(path, {"pid": os.getpid(), "born": birth(os.getpid())})
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        if not any(alive(other) for other in RUNS.glob("*.json")):
            servers.stop()
