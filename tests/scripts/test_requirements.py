"""The pinned requirements are complete, and no two commands want different ones."""

import re
import tomllib

import pytest

from scripts.place import ROOT

PIN = re.compile(r"^([a-z0-9][a-z0-9._-]*)(?:\[[^]]*\])?==(\S+)", re.MULTILINE | re.IGNORECASE)


def pins(path: str) -> dict[str, str]:
    return {plain(name): version for name, version in PIN.findall((ROOT / path).read_text())}


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", re.split(r"[\[<>=!~ ;]", name)[0]).lower()


def test_all_that_the_project_names_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert {plain(name) for name in project["project"]["dependencies"]} <= set(pins("requirements.txt"))
    for group, path in (("dev", "tests/requirements.txt"), ("bench", "bench/requirements.txt")):
        assert {plain(name) for name in project["dependency-groups"][group]} <= set(pins(path))


@pytest.mark.parametrize("path", ["tests/requirements.txt", "bench/requirements.txt"])
def test_what_runs_in_tests_and_bench_is_what_runs_in_production(path: str) -> None:
    assert pins("requirements.txt").items() <= pins(path).items()


def test_tests_and_bench_can_share_an_environment() -> None:
    tests, bench = pins("tests/requirements.txt"), pins("bench/requirements.txt")
    assert {name: (tests[name], bench[name]) for name in tests.keys() & bench if tests[name] != bench[name]} == {}


@pytest.mark.parametrize("path", ["requirements.txt", "tests/requirements.txt", "bench/requirements.txt"])
def test_every_pin_has_its_hashes(path: str) -> None:
    for block in re.split(r"\n(?=[a-z0-9])", (ROOT / path).read_text(), flags=re.IGNORECASE):
        assert "==" not in block or "--hash=sha256:" in block, block
