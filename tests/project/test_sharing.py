"""Several processes count into one directory, die and are born again: no count is lost, none is doubled."""

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from project.telemetry import multiprocess
from project.telemetry.metrics import Counted, render
from project.telemetry.multiprocess import VARIABLE, birth, directory_of, share_with_siblings

COUNTING = """
import os, signal
from prometheus_client import Counter, Gauge, Histogram
Counter("jobs", "Jobs.", ["kind"]).labels('a "quoted" kind').inc(3)
Gauge("busy", "Busy.", multiprocess_mode="livesum").inc()
seconds = Histogram("seconds", "Seconds.", buckets=(1, 10))
seconds.observe(0.5), seconds.observe(5)
print("counted", flush=True)
input()
os.kill(os.getpid(), signal.SIGKILL)
"""


def start(directory: Path) -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        [sys.executable, "-c", COUNTING],
        env={**os.environ, VARIABLE: str(directory)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "counted\n"
    return process


def read(directory: Path) -> dict[tuple[str, str], float]:
    families = text_string_to_metric_families(render([Counted(directory)]).decode())
    return {(s.name, s.labels.get("le", "")): s.value for family in families for s in family.samples}


def test_counts_of_the_living_and_the_dead_add_up_and_their_files_do_not(tmp_path: Path) -> None:
    for round_ in (1, 2, 3):
        living = [start(tmp_path), start(tmp_path)]
        told = read(tmp_path)
        for process in living:
            process.communicate("\n")
        assert told["jobs_total", ""] == 6 * round_
        assert told["busy", ""] == 2, "a dead process is not busy"
        assert told["seconds_bucket", "1.0"] == 2 * round_
        assert told["seconds_bucket", "10.0"] == told["seconds_count", ""] == 4 * round_
        assert told["seconds_sum", ""] == 11 * round_
    assert read(tmp_path)["jobs_total", ""] == 18
    assert read(tmp_path)["jobs_total", ""] == 18, "reading changes nothing"
    assert {path.name for path in tmp_path.iterdir()} == {"counter_0.db", "histogram_0.db", "lock"}


@pytest.mark.parametrize(("method", "at"), [("replace", ".list"), ("replace", ".draft"), ("unlink", ".db")])
@pytest.mark.parametrize("which", [1, 2])
def test_one_killed_while_it_adds_up_loses_and_doubles_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, at: str, which: int
) -> None:
    """Before or in the middle of each step of the first or second file of sums, as many times as it takes."""
    for process in [start(tmp_path), start(tmp_path)]:
        process.communicate("\n")
    real = getattr(Path, method)
    left = which

    def killed(path: Path, *args: Any, **named: Any) -> Any:
        nonlocal left
        left -= path.suffix == at
        if left == 0:
            raise KeyboardInterrupt
        return real(path, *args, **named)

    with monkeypatch.context() as patched, suppress(KeyboardInterrupt):
        patched.setattr(Path, method, killed)
        read(tmp_path)
    told = read(tmp_path)
    assert (told["jobs_total", ""], told["seconds_count", ""]) == (6, 4)
    assert {path.name for path in tmp_path.iterdir()} <= {"counter_0.db", "histogram_0.db", "lock"}


def test_one_killed_before_it_counted_anything_takes_no_counts_away(tmp_path: Path) -> None:
    living = start(tmp_path)
    (tmp_path / "counter_999999999.db").touch()  # no process has such a number
    assert read(tmp_path)["jobs_total", ""] == 3
    living.communicate("\n")


def test_one_that_has_just_begun_to_count_takes_no_counts_away(tmp_path: Path) -> None:
    living = start(tmp_path)
    made = tmp_path / f"counter_{os.getpid()}.db"
    made.touch()  # its size comes a moment later
    assert read(tmp_path)["jobs_total", ""] == 3
    assert made.exists()
    living.communicate("\n")


def test_what_dies_again_and_again_leaves_no_more_files_though_nobody_asks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    for _ in range(3):
        share_with_siblings("worker")
        start(tmp_path).communicate("\n")
    assert len([path for path in tmp_path.glob("counter_*.db") if path.name != "counter_0.db"]) == 1
    (tmp_path / "counter_999999999.db").write_bytes(b"broken")
    share_with_siblings("worker")
    (tmp_path / "counter_999999999.db").unlink(missing_ok=True)
    assert read(tmp_path)["jobs_total", ""] == 9


def test_siblings_share_a_directory_which_goes_once_their_parent_is_dead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(multiprocess.tempfile, "gettempdir", lambda: str(tmp_path))
    dead = subprocess.Popen(["true"])
    dead_ones = directory_of("api", dead.pid)
    dead.wait()
    assert dead_ones is not None
    mine = directory_of("api", os.getpid())
    assert mine is not None
    assert mine == directory_of("api", os.getpid())
    assert not dead_ones.exists()
    assert mine != directory_of("events", os.getpid())
    assert mine.stat().st_mode & 0o077 == 0
    assert mine.exists()


def test_a_directory_that_others_can_write_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multiprocess.tempfile, "gettempdir", lambda: str(tmp_path))
    (tmp_path / f"ordered-work-metrics-{os.getuid()}").mkdir(mode=0o777)
    (tmp_path / f"ordered-work-metrics-{os.getuid()}").chmod(0o777)
    assert directory_of("api", os.getpid()) is None


def test_a_process_whose_counters_exist_already_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    share_with_siblings("api")  # prometheus_client is imported here
    assert VARIABLE not in os.environ


def test_a_process_is_known_by_its_birth() -> None:
    """Told apart from one born later: a parent and its child can be born in one tick of the clock (10 ms)."""
    later = subprocess.Popen(["sleep", "60"])
    try:
        assert birth(os.getpid()) == birth(os.getpid()) != birth(later.pid) or not Path("/proc/self/stat").exists()
    finally:
        later.kill()
        later.wait()
    assert birth(2**22 + 1) == "0"


def test_a_directory_that_is_named_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "not" / "yet"))
    share_with_siblings("api")
    assert (tmp_path / "not" / "yet").is_dir()
    monkeypatch.setenv(VARIABLE, "")
    share_with_siblings("api")
    assert VARIABLE not in os.environ
