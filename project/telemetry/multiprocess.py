"""Counters of several processes of one service, in files that they share: whichever is asked tells of all of them.

prometheus_client writes each process's counters to files of its own in PROMETHEUS_MULTIPROC_DIR. A process that ended
leaves its files behind: they are added up into one, so that restarts lose no count and fill no disk. No library does
that: `mark_process_dead` of prometheus_client removes the gauges of a dead process, and leaves its counters for ever.
This module must not import Django or, at its top, prometheus_client, which chooses its mode when it is imported.
"""

import fcntl
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
ENDED = "0"  # stands for a process id in the names of the files that hold the sums of ended processes


def share_with_siblings(service: str) -> None:
    """Called first thing by each process of a server that forks or spawns several: its siblings are its parent's.

    PROMETHEUS_MULTIPROC_DIR, where it is set, is used as it is; it must be empty at a service's start and its own.
    """
    if not os.environ.get(VARIABLE):
        os.environ.pop(VARIABLE, None)  # empty: as if it were not set
        directory = None if "prometheus_client" in sys.modules else directory_of(service, os.getppid())
        if directory is None:
            return
        os.environ[VARIABLE] = str(directory)
    shared = Path(os.environ[VARIABLE])
    shared.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Nobody may scrape for days, and a process that dies again and again leaves files each time. No count, however
    # broken its file is, keeps a service from starting: whoever scrapes is told.
    with suppress(Exception), settled(shared):
        pass


def directory_of(service: str, pid: int) -> Path | None:
    """The directory that the children of process `pid` share; those of dead processes are removed.

    None where no file can be written: each process then tells of itself alone.
    """
    place = _own_place()
    if place is None:
        return None
    for left in place.glob(f"{service}-*"):
        _, other, born = left.name.rsplit("-", 2)
        if birth(int(other)) != born:
            shutil.rmtree(left, ignore_errors=True)
    directory = place / f"{service}-{pid}-{birth(pid)}"
    directory.mkdir(mode=0o700, exist_ok=True)
    return directory


def _own_place() -> Path | None:
    """A directory that is this user's alone; None where there can be none."""
    place = Path(tempfile.gettempdir()) / f"ordered-work-metrics-{os.getuid()}"
    try:
        place.mkdir(mode=0o700, exist_ok=True)
        mine = place.lstat()
    except OSError:
        return None
    return place if mine.st_uid == os.getuid() and not mine.st_mode & 0o077 and not place.is_symlink() else None


def birth(pid: int) -> str:
    """When that process began, in the kernel's ticks; "0" when there is none, or where /proc is not known."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return "0"


@contextmanager
def settled(directory: Path) -> Iterator[None]:
    """The files of ended processes added up, and nobody else adding meanwhile: what is read now is right."""
    with (directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _add_up_ended(directory)
        yield


def _add_up_ended(directory: Path) -> None:
    for typ in ("counter", "histogram"):
        _remove_included(directory / f"{typ}_{ENDED}.db")
        ended = [path for path in directory.glob(f"{typ}_*.db") if not _lives(path)]
        for path in [path for path in ended if not path.stat().st_size]:  # killed when it had just made it
            ended.remove(path)
            path.unlink()
        if ended:
            _add_up(ended, directory / f"{typ}_{ENDED}.db")
    for path in directory.glob("gauge_*.db"):
        if not _lives(path):
            path.unlink(missing_ok=True)


def _lives(path: Path) -> bool:
    pid = path.stem.rpartition("_")[2]
    if pid == ENDED:
        return True
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _add_up(ended: list[Path], total: Path) -> None:
    from prometheus_client.mmap_dict import MmapedDict, mmap_key
    from prometheus_client.multiprocess import MultiProcessCollector

    sources = [str(path) for path in ended] + ([str(total)] if total.exists() else [])
    # Under its own name only when it is complete; read as "histogram" or "counter" by the first part of its name.
    draft = _draft_of(total)
    draft.unlink(missing_ok=True)
    written = MmapedDict(str(draft))
    for metric in MultiProcessCollector.merge(sources, accumulate=False):
        for sample in metric.samples:
            names = list(sample.labels)
            key = mmap_key(metric.name, sample.name, names, [sample.labels[n] for n in names], metric.documentation)
            written.write_value(key, sample.value, 0.0)
    written.close()
    included, list_draft = _list_of(total), total.with_suffix(".list")
    list_draft.write_text("\n".join(path.name for path in ended))
    list_draft.replace(included)
    draft.replace(total)  # from here on they are counted in it, whether or not we live to remove them
    _remove_included(total)


def _remove_included(total: Path) -> None:
    """Remove the files that the list says are in the sum; a draft that is still there has not become the sum."""
    included = _list_of(total)
    if not included.exists():
        return
    if not _draft_of(total).exists():
        for name in included.read_text().splitlines():
            (total.parent / name).unlink(missing_ok=True)
    included.unlink()


def _draft_of(total: Path) -> Path:
    return total.with_suffix(".draft")


def _list_of(total: Path) -> Path:
    """Of the files that the newest sum includes; there only between its beginning and their removal."""
    return total.with_suffix(".included")
