"""Processes of ours are ended with all they started, and nobody else's is ever touched."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from scripts.place import ROOT
from scripts.servers.process import Process, birth, descendants, launch
from tests.waiting import until


def start(command: list[str], folder: Path, *, guarded: bool = True) -> Process:
    with (folder / "output").open("wb") as output:
        return launch(command, environment=dict(os.environ), output=output, folder=folder, guarded=guarded)


def test_a_number_that_was_given_to_another_process_is_not_signalled() -> None:
    somebody = subprocess.Popen(["sleep", "60"])
    try:
        Process(somebody.pid, born="long ago").kill()
        assert birth(somebody.pid)
    finally:
        somebody.kill()
        somebody.wait()


def test_kill_takes_along_all_that_was_started(tmp_path: Path) -> None:
    process = start(["sh", "-c", "sleep 60 & setsid sleep 60 & wait"], tmp_path)
    until(lambda: len(descendants(process.pid)) == 2, 60, "both have started")
    family = descendants(process.pid)
    process.kill()
    assert not process.alive()
    assert not any(one.alive() for one in family)


def test_a_killed_one_counts_as_dead_when_its_status_is_known(tmp_path: Path) -> None:
    """Its first thread is a zombie before the others are gone: what is said of its end must not be "status None"."""
    code = """
import threading, time
memory = bytearray(200_000_000)
for _ in range(12):
    threading.Thread(target=time.sleep, args=(60,)).start()
print("ready", flush=True)
"""
    for _ in range(5):
        process = start([sys.executable, "-c", code], tmp_path)
        until(lambda: (tmp_path / "output").read_text() == "ready\n", 60, "its threads run")
        process.signal(signal.SIGKILL)
        assert process.wait(60)
        assert process.child is not None
        assert process.child.returncode == -signal.SIGKILL
        process.finish()


def test_what_does_not_stop_when_asked_is_killed(tmp_path: Path) -> None:
    process = start(["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.1; done"], tmp_path)
    until(lambda: (tmp_path / "output").read_text() == "ready\n", 60, "it ignores SIGTERM")
    process.stop(grace=0.1)
    assert not process.alive()


def test_a_process_that_stands_still_stops_when_asked(tmp_path: Path) -> None:
    process = start(["sleep", "60"], tmp_path)
    process.pause()
    process.stop(grace=10)
    assert not process.alive()


def test_nothing_outlives_us_even_when_we_are_killed(tmp_path: Path) -> None:
    """The guarded one ends with its starter's kill -9; the unguarded one, a server that is to stay, does not."""
    code = """
import sys, time
from pathlib import Path
from tests.scripts.test_process import start
folder = Path(sys.argv[1])
ours = [start(["sleep", "61"], folder), start(["sleep", "62"], folder, guarded=False)]
print(*[one.pid for one in ours], flush=True)
time.sleep(60)
"""
    environment = os.environ | {"DEBUG": "1"}
    starter = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True, env=environment
    )
    assert starter.stdout is not None
    guarded, unguarded = (Process(pid, birth(pid)) for pid in map(int, starter.stdout.readline().split()))
    try:
        assert guarded.alive()
        starter.send_signal(signal.SIGKILL)
        until(lambda: not guarded.alive(), 60, "the guarded process ended")
        assert unguarded.alive()
    finally:
        unguarded.kill()
        starter.wait()
        starter.stdout.close()
