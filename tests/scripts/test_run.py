"""The script ./run: what it sets up, once, and that nothing half-made is ever trusted."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.place import ROOT
from scripts.run import commands
from tests.waiting import until

TOOLS = (
    *("bash", "cat", "cksum", "date", "dirname", "env", "flock", "grep", "id", "ln", "mkdir", "mv", "readlink", "rm"),
    "tail",
)


@pytest.fixture(scope="module")
def quick_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a python3 that makes an environment by copying one: making one takes seconds."""
    folder = tmp_path_factory.mktemp("python")
    subprocess.run([sys.executable, "-m", "venv", folder / "environment"], check=True)
    (folder / "bin").mkdir()
    (folder / "bin" / "python3").write_text(
        "#!/bin/sh\n"
        f'[ "$1 $2" != "-m venv" ] || exec cp -a "{folder}/environment" "$3"\n'
        f'exec "{Path(sys.executable).resolve()}" "$@"\n'
    )
    (folder / "bin" / "python3").chmod(0o755)
    return folder / "bin"


@pytest.fixture
def copy(tmp_path: Path, quick_python: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working copy whose requirements are none and whose commands print what runs them."""
    monkeypatch.setenv("PATH", str(quick_python), prepend=os.pathsep)
    folder = tmp_path / "a folder"
    (folder / "scripts" / "run").mkdir(parents=True)
    shutil.copy(ROOT / "run", folder / "run")
    (folder / "scripts" / "__init__.py").touch()
    (folder / "scripts" / "run" / "__init__.py").touch()
    (folder / "scripts" / "run" / "__main__.py").write_text("import sys\nprint(sys.prefix, *sys.argv[1:])\n")
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


def environment_of(copy: Path) -> Path:
    """The one that .venv names."""
    return (copy / ".venv").resolve()


def environments(copy: Path) -> set[Path]:
    return set((copy / ".local" / "environments").iterdir())


def test_it_sets_up_once_and_runs_from_anywhere(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", os.environ["PATH"].partition(os.pathsep)[2])  # with this machine's own Python
    first, second = run(copy, "up", "one", "two words"), run(copy, "up")
    assert first.returncode == 0, first.stderr
    assert first.stdout.splitlines()[-1] == f"{environment_of(copy)} up one two words"
    assert "Python environment" in first.stdout
    assert second.stdout == f"{environment_of(copy)} up\n"


def test_new_requirements_are_installed_and_what_test_needs_is_kept(copy: Path) -> None:
    run(copy, "test")
    before = environment_of(copy)
    assert run(copy, "up").stdout == f"{before} up\n"
    (copy / "requirements.txt").write_text("# changed\n")
    changed = run(copy, "up")
    assert "requirements (requirements.txt, tests/requirements.txt)" in changed.stdout
    assert run(copy, "test").stdout == f"{environment_of(copy)} test\n"
    assert environments(copy) == {environment_of(copy)} != {before}, "what nobody runs from is removed"


def test_a_set_up_that_is_killed_leaves_the_environment_as_it_was(copy: Path) -> None:
    run(copy, "up")
    before = environment_of(copy)
    (copy / "requirements.txt").write_text("# changed\n")
    setup = subprocess.Popen([copy / "run", "up"], stdout=subprocess.DEVNULL, start_new_session=True)
    until(
        lambda: any((one / "bin" / "python").exists() for one in environments(copy) - {before}), 60, "it is half made"
    )
    os.killpg(setup.pid, 9)
    setup.wait()
    (half_made,) = environments(copy) - {before}
    assert environment_of(copy) == before
    assert run(copy, "stop").stdout == f"{before} stop\n"
    again = run(copy, "up")
    assert again.stdout.splitlines()[-1] == f"{environment_of(copy)} up"
    assert "Python environment" in again.stdout
    assert environment_of(copy) not in (before, half_made)
    assert environments(copy) == {environment_of(copy)}


LASTS = """
import subprocess, sys
print(sys.prefix, *sys.argv[1:], flush=True)
if sys.argv[1:] == ["up"]:
    sys.stdin.readline()
    subprocess.run([sys.executable, "-c", "import sys, pip; print(sys.prefix)"], check=True)
"""


def test_what_runs_keeps_its_environment_until_it_ends(copy: Path) -> None:
    """And starts its children from it, whatever has been set up, or was not, since it began."""
    (copy / "scripts" / "run" / "__main__.py").write_text(LASTS)
    with subprocess.Popen([copy / "run", "up"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as up:
        assert up.stdin is not None
        assert up.stdout is not None
        for line in up.stdout:
            if line.endswith(" up\n"):
                break
        before = environment_of(copy)
        (copy / "requirements.txt").write_text("./no-such-folder\n")
        assert run(copy, "shell").returncode == 1
        assert environment_of(copy) == before
        (copy / "requirements.txt").write_text("# changed\n")
        assert run(copy, "shell").returncode == 0
        assert environments(copy) == {environment_of(copy), before} != {before}
        up.stdin.write("\n")
        up.stdin.close()
        assert up.stdout.read() == f"{before}\n"
    (copy / "requirements.txt").write_text("# changed again\n")
    run(copy, "shell")
    assert before not in environments(copy)


def test_stop_installs_nothing(copy: Path) -> None:
    run(copy, "up")
    before = environment_of(copy)
    (copy / "requirements.txt").write_text("./no-such-folder\n")
    assert run(copy, "stop").stdout == f"{before} stop\n"
    assert environments(copy) == {before}


def test_an_environment_in_a_folder_of_that_name_makes_room_for_the_link(copy: Path) -> None:
    (copy / ".venv" / "bin").mkdir(parents=True)
    assert run(copy, "up").stdout.splitlines()[-1] == f"{environment_of(copy)} up"
    assert (copy / ".venv").is_symlink()
    assert environments(copy) == {environment_of(copy)}


def test_two_at_once_set_up_one_environment(copy: Path) -> None:
    both = [
        subprocess.Popen([copy / "run", "up", name], stdout=subprocess.PIPE, text=True, cwd="/") for name in ("a", "b")
    ]
    said = [one.communicate()[0] for one in both]
    assert [one.returncode for one in both] == [0, 0]
    assert sorted(text.splitlines()[-1] for text in said) == [f"{environment_of(copy)} up {name}" for name in "ab"]
    assert sum("Python environment" in text for text in said) == 1


def test_failed_requirements_are_shown_and_not_trusted(copy: Path) -> None:
    (copy / "requirements.txt").write_text("./no-such-folder\n")
    failed = run(copy, "up")
    assert failed.returncode == 1
    assert "requirements (requirements.txt) .. failed" in failed.stdout
    assert "no-such-folder" in failed.stderr
    assert not (copy / ".venv").exists()
    (copy / "requirements.txt").write_text("")
    assert run(copy, "up").stdout.splitlines()[-1] == f"{environment_of(copy)} up"


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
    shutil.copytree(ROOT / "scripts", folder / "scripts")
    shutil.copy(ROOT / "run", folder / "run")
    said = run(folder, *arguments)
    assert said.returncode == status
    assert "PORT=8123 ./run up" in said.stdout + said.stderr
    assert not (folder / ".venv").exists()


def test_stop_without_any_set_up_says_that_nothing_runs(copy: Path) -> None:
    assert run(copy, "stop").stdout == "nothing runs: nothing was started here\n"


def test_clean_without_any_set_up_makes_nothing(copy: Path) -> None:
    assert run(copy, "clean").stdout == "clean: nothing was made here\n"
    assert not (copy / ".local").exists()


@pytest.mark.parametrize(
    ("arguments", "own_app"),
    [
        (["tests/scripts", "-k", "queues"], False),
        (["-x", "-m", "accounts"], False),
        (["-n", "2", "tests/scripts"], False),
        (["-x", "examples"], True),
        (["-k", "queues", "examples"], True),
    ],
)
def test_only_a_path_is_taken_for_tests_of_somebodys_own_app(
    arguments: list[str], own_app: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    run: list[str] = []
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(os, "execv", lambda _, command: run.extend(command))
    monkeypatch.setattr(subprocess, "call", lambda *_, **__: 0)
    monkeypatch.setattr(commands, "signals_interrupt", lambda: None)
    commands.test(arguments)
    assert run[-len(arguments) :] == arguments
    assert (commands.YOURS[-1] in run) == own_app
