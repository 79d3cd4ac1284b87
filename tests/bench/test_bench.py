"""`./run bench` tells all of it, to the end: and leaves nothing behind, however it ends."""

import importlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from bench import compare, document
from bench.names import ALONE, COMPARED, groups, result_of
from bench.peers.base import Peer
from bench.report import Report
from scripts.place import ROOT
from scripts.servers.process import Process, birth, descendants
from tests.waiting import until


@contextmanager
def bench(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A run of its own, ended with the block at the latest."""
    command = [sys.executable, "-m", "bench", *arguments, "--quick", "--peers", "ours"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)


def databases(pid: int) -> list[str]:
    """Those that the process borrowed."""
    with psycopg.connect(os.environ["DATABASE_URL"]) as sql:
        rows = sql.execute("SELECT datname FROM pg_database WHERE datname LIKE %s", [f"ordered_work_bench_{pid}_%"])
        return [name for (name,) in rows]


def test_a_quick_bench_tells_its_figures_and_leaves_nothing() -> None:
    with bench("wide", "round-trip") as running:
        said, _ = running.communicate(timeout=150)
    assert running.returncode == 0, said
    kept = json.loads(result_of(["wide"], quick=True).read_text())
    assert [table["title"].partition(":")[0] for table in kept["tables"]] == ["wide", "round-trip"]
    (ours,) = kept["raw"]["wide"]["this project"]
    assert ours["rate"] > 0
    assert [ours[name] for name in ("overtook", "at_once", "repeated", "lost", "recorded")] == [0] * 5
    assert not list((ROOT / ".local" / "bench").glob(f"run-{running.pid}"))


def test_an_interrupted_bench_leaves_no_database_and_no_process() -> None:
    with bench("deep", "slow", "noisy") as running:
        family: list[Process] = []

        def at_work() -> bool:
            family[:] = descendants(running.pid)
            return any(b"manage.py" in Path(f"/proc/{one.pid}/cmdline").read_bytes() for one in family if one.alive())

        until(at_work, 120, "its workers run")
        one = next(process for process in family if databases(process.pid))
        running.send_signal(signal.SIGINT)
        running.communicate(timeout=90)
    assert running.returncode == 130
    assert databases(one.pid) == []
    assert [process for process in family if birth(process.pid) == process.born != ""] == []
    assert not (ROOT / ".local" / "bench" / f"run-{one.pid}").exists()


class Broken(Peer):
    def start(self, here: object, users: int) -> None:
        raise TimeoutError("warm workers: not within 60 s")

    def stop(self) -> None:
        self.stopped = True


def test_a_peer_that_does_not_start_is_a_line_in_the_report() -> None:
    peer = Broken("broken", None, None, [], [])
    found = compare.measured(None, peer, "wide", True, 10)  # type: ignore[arg-type]
    assert found == {"error": "it did not start: warm workers: not within 60 s"}
    assert peer.stopped
    report = Report()
    compare.tell(report, "wide", True, {"ours": [{"rate": 2.0} | dict.fromkeys(CHECKS, 0)], "broken": [found]})
    assert report.notes == ["wide: broken: it did not start: warm workers: not within 60 s"]
    assert [row[0] for row in report.tables[0]["rows"]] == ["ours", "broken"]


CHECKS = ("overtook", "at_once", "repeated", "lost")


@pytest.mark.parametrize("name", ALONE)
def test_every_measurement_is_found(name: str) -> None:
    assert callable(importlib.import_module(f"bench.{ALONE[name][0]}").run)


def test_the_compared_loads_share_a_place_and_the_others_have_their_own() -> None:
    assert groups(["latency", "deep", "accept", "kill"]) == [["deep", "kill"], ["accept"], ["latency"]]
    assert groups(list(COMPARED)) == [list(COMPARED)]


def test_the_document_keeps_what_is_not_between_the_markers() -> None:
    text = "before\n<!-- bench:wide -->\nold\n<!-- /bench:wide -->\nafter\n"
    written, found = document.between(text, "wide", "new")
    assert found
    assert written == "before\n<!-- bench:wide -->\n\nnew\n\n<!-- /bench:wide -->\nafter\n"
    assert document.between(text, "deep", "new") == (text, False)


@pytest.mark.parametrize("name", ALONE)
def test_whatever_can_be_measured_alone_has_a_module_that_does_it(name: str) -> None:
    assert callable(importlib.import_module(f"bench.{ALONE[name][0]}").run)
