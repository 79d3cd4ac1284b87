"""Which processes that tests start count in the coverage: a few. Watched, each takes half as long again to start."""

from coverage import Coverage

from scripts.place import ROOT


def watched() -> dict[str, str]:
    """For the environment of a process whose code counts; empty where nothing is counted."""
    if Coverage.current() is None:
        return {}
    return {"COVERAGE_PROCESS_START": str(ROOT / "pyproject.toml"), "COVERAGE_FILE": str(ROOT / ".coverage")}
