"""The script ./run: what it sets up, once, and that nothing half-made is ever trusted."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from project.local.place import ROOT

TOOLS = ("bash", "cat", "cksum", "dirname", "env", "flock", "id", "ls", "mkdir", "readlink", "rm", "tail", "touch")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A working copy whose requirements are none and whose commands print what runs them."""
    folder = tmp_path / "a folder"
    (folder / "project" / "local").mkdir(parents=True)
    shutil.copy(ROOT / "run", folder / "run")
    (folder / "project" / "__init__.py").touch()
    (folder / "project" / "local" / "__init__.py").touch()
    (folder / "project" / "local" / "__main__.py").write_text("import sys\nprint(sys.prefix, *sys.argv[1:])\n")
    (folder / "requirements.txt").touch()
    (folder / "tests").mkdir()
    (folder / "tests" / "requirements.txt").touch()
    return folder


def run(copy: Path, *arguments: str, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [copy / "run", *arguments],
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
        env=dict(os.environ) if environment is None else environment,
    )


def test_it_sets_up_once_and_runs_from_anywhere(copy: Path) -> None:
    first, second = run(copy, "up", "one", "two words"), run(copy, "up")
    assert first.returncode == 0, first.stderr
    assert first.stdout.splitlines()[-1] == f"{copy}/.venv up one two words"
    assert "Python environment" in first.stdout
    assert second.stdout == f"{copy}/.venv up\n"


def test_new_requirements_are_installed_and_what_test_needs_is_kept(copy: Path) -> None:
    run(copy, "test")
    assert run(copy, "up").stdout == f"{copy}/.venv up\n"
    (copy / "requirements.txt").write_text("# changed\n")
    changed = run(copy, "up")
    assert "requirements (requirements.txt, tests/requirements.txt)" in changed.stdout
    assert "Python environment" not in changed.stdout
    assert run(copy, "test").stdout == f"{copy}/.venv test\n"


def test_what_was_interrupted_is_made_anew(copy: Path, until: Callable[..., None]) -> None:
    setup = subprocess.Popen([copy / "run", "up"], stdout=subprocess.DEVNULL, start_new_session=True)
    until(lambda: (copy / ".venv" / "bin" / "python").exists(), "the environment is half made")
    os.killpg(setup.pid, 9)
    setup.wait()
    (copy / ".venv" / "half-made").touch()
    again = run(copy, "up")
    assert again.stdout.splitlines()[-1] == f"{copy}/.venv up"
    assert "Python environment" in again.stdout
    assert not (copy / ".venv" / "half-made").exists()


def test_two_at_once_set_up_one_environment(copy: Path) -> None:
    both = [
        subprocess.Popen([copy / "run", "up", name], stdout=subprocess.PIPE, text=True, cwd="/") for name in ("a", "b")
    ]
    said = [one.communicate()[0] for one in both]
    assert [one.returncode for one in both] == [0, 0]
    assert sorted(text.splitlines()[-1] for text in said) == [f"{copy}/.venv up a", f"{copy}/.venv up b"]
    assert sum("Python environment" in text for text in said) == 1


def test_failed_requirements_are_shown_and_not_trusted(copy: Path) -> None:
    (copy / "requirements.txt").write_text("./no-such-folder\n")
    failed = run(copy, "up")
    assert failed.returncode == 1
    assert "requirements (requirements.txt) .. failed" in failed.stdout
    assert "no-such-folder" in failed.stderr
    (copy / "requirements.txt").write_text("")
    assert run(copy, "up").stdout.splitlines()[-1] == f"{copy}/.venv up"


def bare_machine(folder: Path, python: str | None) -> dict[str, str]:
    """The environment of a machine with a few tools, no package manager, and `python` as its python3."""
    programs = folder / "bin"
    programs.mkdir()
    for tool in TOOLS:
        (programs / tool).symlink_to(str(shutil.which(tool)))
    if python:
        (programs / "python3").write_text(python)
        (programs / "python3").chmod(0o755)
    return {"PATH": str(programs), "HOME": str(folder)}


def test_a_machine_without_python_is_told_what_to_install(copy: Path, tmp_path: Path) -> None:
    said = run(copy, "up", environment=bare_machine(tmp_path, None))
    assert said.returncode == 1
    assert "Python 3.11 or newer is needed" in said.stderr


def test_a_python_that_can_make_no_environment_is_told_what_to_install(copy: Path, tmp_path: Path) -> None:
    python = f'#!/bin/sh\ncase "$*" in *ensurepip*) exit 1 ;; esac\nexec {Path(sys.executable).resolve()} "$@"\n'
    said = run(copy, "up", environment=bare_machine(tmp_path, python))
    assert said.returncode == 1
    assert "has no venv module (ensurepip), and neither uv nor virtualenv is on the PATH" in said.stderr


@pytest.mark.parametrize(("arguments", "status"), [((), 0), (("help",), 0), (("--help",), 0), (("nonsense",), 2)])
def test_help_needs_no_set_up(arguments: tuple[str, ...], status: int, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(ROOT / "project", folder / "project")
    shutil.copy(ROOT / "run", folder / "run")
    said = run(folder, *arguments)
    assert said.returncode == status
    assert "PORT=8123 ./run up" in said.stdout + said.stderr
    assert not (folder / ".venv").exists()


def test_stop_without_any_set_up_says_that_nothing_runs(copy: Path) -> None:
    assert run(copy, "stop").stdout == "nothing runs: nothing was started here\n"
