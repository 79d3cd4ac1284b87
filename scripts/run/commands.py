"""The commands of a few lines: stop, shell, manage, bench, test."""

import os
import subprocess
import sys
from pathlib import Path

from scripts.place import ROOT, read_state
from scripts.run.application import environment
from scripts.run.runs import RUNS
from scripts.run.up import recorded
from scripts.servers import servers
from scripts.servers.process import Process, signals_interrupt

COVERED_PERCENT = 95  # of lines and branches
FAILED = 1  # pytest's exit status
YOURS = ("-c", "pyproject.toml", "-p", "tests.conftest", "-p", "processing.testing.plugin")  # servers, fixtures
# Options of pytest whose value may be the next word; rarer ones are written with `=`.
WITH_VALUE = {"-c", "-k", "-m", "-n", "-o", "-p", "-W", "--deselect", "--durations", "--ignore", "--maxfail", "--tb"}
TEST_PROCESSES = 4  # on two cores: most tests wait for servers, or for what they started


def stop(_: list[str]) -> int:
    """Ends every `./run up` and `demo` of this working copy, then the servers that were started for them."""
    running = 0
    for path in RUNS.glob("*.json"):
        state = read_state(path)
        process = Process(state["pid"], state["born"]) if state else None
        if process and process.alive():
            running += 1
            process.stop(grace=40)
        path.unlink(missing_ok=True)
    ended = servers.stop()
    print(f"stopped: {running} of ./run; servers: {', '.join(ended) or 'none of ours ran'}")
    return 0


def shell(arguments: list[str]) -> int:
    """Python with Django, on the data of `./run up`."""
    variables = environment(servers.find())
    os.chdir(ROOT)
    os.execve(sys.executable, [sys.executable, "manage.py", "shell", *arguments], variables)


def manage(arguments: list[str]) -> int:
    """`manage.py` with `arguments`, on the servers and data of `./run up`, which may run beside it."""
    signals_interrupt()
    with recorded():
        variables = environment(servers.find())
        return subprocess.call([sys.executable, str(ROOT / "manage.py"), *arguments], env=variables)


def test(arguments: list[str]) -> int:
    """pytest with `arguments`; without any, the whole suite in several processes, and how much of the code it runs."""
    os.chdir(ROOT)
    whole = ["--cov", "--cov-report=term", f"--cov-fail-under={COVERED_PERCENT}"]
    whole += ["--numprocesses", str(TEST_PROCESSES), "--dist=loadfile", "--no-loadscope-reorder"]
    pytest = [sys.executable, "-m", "pytest"]
    if arguments:
        pairs = zip(["", *arguments], arguments, strict=False)
        yours = [*YOURS] if any(outside(word) for before, word in pairs if before not in WITH_VALUE) else []
        os.execv(sys.executable, [*pytest, *yours, *arguments])
    signals_interrupt()
    compiled_once = {**os.environ, "PYTHONDONTWRITEBYTECODE": ""}  # hundreds of processes start
    status = subprocess.call([*pytest, *whole], env=compiled_once)
    if status == FAILED:
        print("What failed beside others is repeated alone: a promise that is broken is broken there, too.", flush=True)
        status = subprocess.call([*pytest, "--last-failed", "--last-failed-no-failures=none"])
    return status


def outside(argument: str) -> bool:
    """Whether it names tests of somebody's own app: a path that is there, and not in tests/."""
    path = Path(argument.partition("::")[0]).resolve()
    return not argument.startswith("-") and path.exists() and not path.is_relative_to(ROOT / "tests")


def bench(arguments: list[str]) -> int:
    """The measurements; they borrow servers for themselves."""
    os.chdir(ROOT)
    os.execv(sys.executable, [sys.executable, "-m", "bench", *arguments])
