"""The health endpoints of dispatchers and workers: they say what is, and count over the death of a process."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from prometheus_client.parser import text_string_to_metric_families

from processing.dispatch.dispatcher import Dispatcher
from processing.dispatch.probes import DispatcherProbes
from processing.health import STUCK_SECONDS
from processing.worker.heartbeat import Heartbeat
from processing.worker.probes import WorkersProbes
from processing.worker.supervisor import Supervisor
from processing.worker.watchdog import Watchdog
from project.telemetry import health
from project.telemetry.probe_server import PortUnusable, Probes
from queues.lifecycle.outbox import Shard
from scripts.place import free_port
from scripts.servers.process import descendants
from tests.processing.crew import all_done, new_user, submit
from tests.processing.journal import Journal
from tests.waiting import until

RUN = Path(__file__).parent / "run.py"
START_SECONDS = 90


def ask(port: int, path: str, method: str = "GET") -> tuple[int, bytes]:
    """What is answered; 0 while nobody does."""
    try:
        request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", method=method)
        with urllib.request.urlopen(request, timeout=20) as answer:  # noqa: S310
            return answer.status, answer.read()
    except urllib.error.HTTPError as refused:
        return refused.code, refused.read()
    except OSError:
        return 0, b""


def scrape(port: int) -> dict[str, float]:
    """The sums of each name over all labels."""
    sums: dict[str, float] = {}
    for family in text_string_to_metric_families(ask(port, "/metrics")[1].decode()):
        for sample in family.samples:
            sums[sample.name] = sums.get(sample.name, 0.0) + sample.value
    return sums


@pytest.fixture
def processes(transactional_db: None, tmp_path: Path) -> Iterator[dict[str, tuple[int, int]]]:
    """A dispatcher and two worker processes, each service with its port and its pid."""
    running = {}
    found: dict[str, tuple[int, int]] = {}
    with (tmp_path / "output").open("wb") as output:
        for name, arguments in (("dispatch", []), ("work", ["--processes", "2", "--threads", "2"])):
            port = free_port()
            command = [sys.executable, str(RUN), name, *arguments, "--health-port", str(port)]
            running[name] = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
            found[name] = port, running[name].pid
    yield found
    for process in running.values():
        process.terminate()
    for process in running.values():
        assert process.wait(40) == 0
    print((tmp_path / "output").read_text())


def test_services_tell_how_they_are_and_count_over_the_death_of_a_process(
    processes: dict[str, tuple[int, int]], journal: Journal
) -> None:
    (dispatcher, _), (worker, supervisor) = processes["dispatch"], processes["work"]
    for port in (dispatcher, worker):
        until(lambda port=port: ask(port, "/health/ready")[0] == 200, START_SECONDS)  # type: ignore[misc]
        assert ask(port, "/health/live")[0] == 200
    assert set(json.loads(ask(worker, "/health/ready")[1])["checks"]) == {
        "postgresql", "migrations", "rabbitmq", "workers",
    }  # fmt: skip

    user = new_user()
    submit(user, *[journal.payload()] * 20, kind="test.journal")
    until(all_done, 60)
    before = until(lambda: (s := scrape(worker))["ordered_work_finished_total"] == 20 and s, 20)
    assert before["ordered_work_handler_seconds_count"] == 20
    assert (before["ordered_work_threads"], before["ordered_work_worker_children"]) == (4, 2)
    led = scrape(dispatcher)
    assert (led["ordered_work_dispatcher_leads"], led["ordered_work_published_total"]) == (1, 20)

    os.kill(descendants(supervisor)[0].pid, signal.SIGKILL)
    until(lambda: scrape(worker)["ordered_work_worker_restarts_total"] == 1, 20)
    until(lambda: scrape(worker)["ordered_work_threads"] == 4, START_SECONDS, "the new process does not count")
    assert scrape(worker)["ordered_work_finished_total"] == 20, "what the dead one counted stays"
    assert ask(worker, "/health/live")[0] == 200


# What the endpoints would say, without processes


def well() -> dict[str, str]:
    return {"all": "ok"}


@pytest.fixture
def probes() -> Iterator[Probes]:
    probes = Probes("127.0.0.1", 0, well, lambda: {"all": "ok", "one": "down"}, lambda: b"metrics").start()
    yield probes
    probes.shutdown()
    probes.server_close()


def test_anything_but_ok_is_a_503_that_names_it(probes: Probes) -> None:
    port = probes.server_port
    assert ask(port, "/health/live") == (200, b'{"status":"ok","checks":{"all":"ok"}}')
    assert ask(port, "/health/ready?verbose") == (503, b'{"status":"down","checks":{"all":"ok","one":"down"}}')
    assert ask(port, "/metrics") == (200, b"metrics")
    assert ask(port, "/metrics", "HEAD") == (200, b"")
    assert ask(port, "/else")[0] == 404
    assert ask(port, "/metrics", "POST")[0] == 501


def test_a_check_that_fails_is_a_503_and_shows_no_traceback() -> None:
    def broken() -> dict[str, str]:
        raise RuntimeError("a secret")

    probes = Probes("127.0.0.1", 0, broken, broken, lambda: b"").start()
    assert ask(probes.server_port, "/health/live") == (503, b"RuntimeError\n")
    probes.shutdown()
    probes.server_close()


@pytest.mark.django_db
def test_a_taken_port_is_said_in_a_sentence(probes: Probes) -> None:
    with pytest.raises(PortUnusable, match=f"127.0.0.1:{probes.server_port} cannot be listened on"):
        Probes("127.0.0.1", probes.server_port, well, well, lambda: b"")
    for command in ("dispatch", "work"):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            with pytest.raises(CommandError, match="--health-port"):
                call_and_restore_signals(command, taken.getsockname()[1])


def call_and_restore_signals(command: str, port: int) -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    try:
        call_command(command, health_port=port)
    finally:
        signal.signal(signal.SIGTERM, before[0])
        signal.signal(signal.SIGINT, before[1])


@pytest.fixture
def all_servers_work(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    found = dict.fromkeys(("postgresql", "rabbitmq", "redis", "migrations", "dispatcher"), "ok")
    monkeypatch.setattr(health, "checks", lambda: found)
    return found


def test_a_dispatcher_that_stands_still_is_not_alive(all_servers_work: dict[str, str]) -> None:
    dispatcher = Dispatcher(Shard(0, 1))
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    probes = DispatcherProbes([(dispatcher, thread)])
    assert probes.live() == {"shard 0": "ok"}
    all_servers_work["rabbitmq"] = "down"
    assert probes.live() == {"shard 0": "ok"}, "no restart of ours brings RabbitMQ back"
    assert probes.ready()["rabbitmq"] == "down"
    dispatcher.looked -= STUCK_SECONDS
    assert probes.live() == {"shard 0": "stuck"}
    stop.set()
    thread.join()
    assert probes.live() == {"shard 0": "its thread ended"}


class TwoProcesses(Supervisor):
    """As if they ran."""

    def __init__(self, started: float) -> None:
        super().__init__([], {})
        self.started = started

    def running(self) -> list[tuple[int, float]]:
        return [(7, self.started), (8, self.started)]


def test_workers_are_ready_with_the_first_that_postgresql_knows(
    all_servers_work: dict[str, str], tmp_path: Path
) -> None:
    probes = WorkersProbes(TwoProcesses(time.monotonic()), tmp_path)
    assert probes.live() == {"supervisor": "ok", "process 7": "ok", "process 8": "ok"}
    assert probes.ready()["workers"] == "none works yet"
    Heartbeat(tmp_path, 7).give(known=False)
    assert probes.ready()["workers"] == "none works yet"
    Heartbeat(tmp_path, 8).give(known=True)
    assert set(probes.ready().values()) == {"ok"}


def test_a_worker_process_that_went_silent_is_stuck(all_servers_work: dict[str, str], tmp_path: Path) -> None:
    probes = WorkersProbes(TwoProcesses(time.monotonic() - STUCK_SECONDS), tmp_path)
    for pid in (7, 8):
        Heartbeat(tmp_path, pid).give(known=True)
    long_ago = time.time() - STUCK_SECONDS - 1
    os.utime(tmp_path / "beat-7", (long_ago, long_ago))
    assert probes.live() == {"supervisor": "ok", "process 7": "stuck", "process 8": "ok"}
    os.utime(tmp_path / "beat-8", (long_ago, long_ago))
    assert probes.ready()["workers"] == "none works yet"
    (tmp_path / "beat-8").unlink()
    assert probes.live()["process 8"] == "stuck", "it never came to life"


def test_the_watch_gives_the_sign_of_life(transactional_db: None, tmp_path: Path) -> None:
    watch, beat = Watchdog(), Heartbeat(tmp_path)
    watch.start(threading.Event(), beat)
    until(beat.known, 20)
    age: Any = beat.age()
    assert age < 20
    watch.stop(0)
