"""`./run clean`: all that this working copy has on servers, and all that ./run made in it, is given back."""

import fcntl
import os
import shutil
import sys
from pathlib import Path

from scripts.place import LOCAL, ROOT, SetupError, read_state
from scripts.run.runs import RUNS
from scripts.servers import postgresql, rabbitmq, redis, servers
from scripts.servers.borrowing import SESSIONS, clear_the_dead, give_back
from scripts.servers.process import Process
from scripts.servers.servers import OWN_PLACE

HELD_BY_US = 8  # the descriptor with which ./run holds the environment that we run from


def main(arguments: list[str]) -> int:
    """0 when it is done, 1 when the answer was no. Raises SetupError while anything of this working copy runs."""
    if arguments not in ([], ["--yes"]):
        raise SetupError(f"./run clean knows --yes alone (without it, it asks), not {' '.join(arguments)!r}.")
    refuse_while_anything_runs()
    state = read_state(OWN_PLACE / "places.json")
    kept = places(state)
    for title, what in kept.items():
        refuse_what_does_not_answer(title, state)
        print(f"{title}: {what} is removed, with all that it holds")
    print(f"files: {', '.join(str(path.relative_to(ROOT)) for path in files()) or 'none'}")
    if not arguments and not agreed():
        print("nothing was removed")
        return 1
    clear_the_dead()
    give_back(OWN_PLACE)
    servers.remove()
    for path in files():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    print("clean: as if it had just been cloned")
    return 0


def refuse_while_anything_runs() -> None:
    """Raises SetupError, which says what to do."""
    for path in (*RUNS.glob("*.json"), *SESSIONS.glob("*/state.json")):
        state = read_state(path)
        if state and Process(state["pid"], state["born"]).alive():
            raise SetupError(f"Process {state['pid']} of this working copy runs. ./run stop ends it; then ./run clean.")
    if environments_in_use():
        raise SetupError("Another ./run of this working copy goes on (test, shell ..). End it; then ./run clean.")


def environments_in_use() -> bool:
    """Whether another ./run holds an environment of this working copy."""
    for path in LOCAL.glob("environments/*/installed"):
        with path.open() as file:
            descriptor = HELD_BY_US if is_open_as(HELD_BY_US, path) else file.fileno()
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                fcntl.flock(descriptor, fcntl.LOCK_SH)
            except BlockingIOError:
                return True
    return False


def is_open_as(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except OSError:
        return False


def places(state: dict[str, str]) -> dict[str, str]:
    """What this working copy has on servers that go on without it."""
    if not state:
        return {}
    what = {
        "PostgreSQL": f"the database {state['database_url'].rpartition('/')[2]}",
        "RabbitMQ": f"the queues {state['queue_prefix']}.."
        if state["queue_prefix"]
        else f"the virtual host {state['rabbitmq_url'].rpartition('/')[2]}",
        "Redis": f"all under {state['redis_prefix']}"
        if state["redis_prefix"]
        else f"number {state['redis_url'].rpartition('/')[2]}",
    }
    return {title: what[title] for title in state["lasting"]}


def refuse_what_does_not_answer(title: str, state: dict[str, str]) -> None:
    """Raises SetupError: what is not reached would stay there for ever."""
    module, variable = {
        "PostgreSQL": (postgresql, "database_url"),
        "RabbitMQ": (rabbitmq, "rabbitmq_url"),
        "Redis": (redis, "redis_url"),
    }[title]
    wrong = module.reach(state[variable])
    if wrong and "does not exist" not in wrong and "not found" not in wrong:
        raise SetupError(f"{title} does not answer ({wrong}), and what is kept there would stay. Start it, then again.")


def files() -> list[Path]:
    """What ./run made in this working copy and is there."""
    return [path for name in (".venv", ".local", "staticfiles") if os.path.lexists(path := ROOT / name)]


def agreed() -> bool:
    """Whether somebody at a terminal says yes. Raises SetupError where nobody can be asked."""
    if not sys.stdin.isatty():
        raise SetupError("Nobody can be asked here: ./run clean --yes removes it without a question.")
    return input("Remove all of it? yes or no: ").strip().lower() in ("y", "yes")
