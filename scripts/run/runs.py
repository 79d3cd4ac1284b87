"""The runs of this working copy that are written down: `./run up`, `demo`, `manage`."""

from pathlib import Path

from scripts.place import LOCAL, read_state
from scripts.servers.process import Process

RUNS = LOCAL / "runs"


def alive(path: Path) -> bool:
    """Whether the run that is written down there goes on."""
    state = read_state(path)
    return bool(state) and Process(state["pid"], state["born"]).alive()


def numbers() -> list[int]:
    """The processes of those that go on."""
    return sorted(read_state(path)["pid"] for path in RUNS.glob("*.json") if alive(path))
