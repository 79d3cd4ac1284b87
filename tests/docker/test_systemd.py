"""docs/systemd runs the same processes as docker/compose.yml, each with a port of its own."""

import re
from functools import cache

import pytest
from django.core.management import get_commands, load_command_class
from granian.cli import cli as granian

from project.environment import Environment
from scripts.place import ROOT
from tests.docker.compose import image_command, ours

VARIABLES = {name.upper() for name in Environment.model_fields}
FOLDER = ROOT / "docs" / "systemd"
BIN = "/opt/ordered-work/.venv/bin/"


@cache
def units() -> dict[str, dict[str, str]]:
    """The settings of each service, by the process it runs."""
    return {
        re.sub(r"^ordered-work-|@$", "", path.stem): dict(re.findall(r"(?m)^(\w+)=(.*)$", path.read_text()))
        for path in FOLDER.glob("*.service")
    }


def words(name: str) -> list[str]:
    assert units()[name]["ExecStart"].startswith(BIN)
    return units()[name]["ExecStart"].removeprefix(BIN).split()


def variables(name: str) -> dict[str, str]:
    return dict(pair.split("=", 1) for pair in units()[name]["Environment"].split())


def test_the_same_processes_run_as_composed() -> None:
    assert set(units()) == set(ours()) - {"migrate"}
    for name, service in ours().items():
        composed = service.get("command", image_command())
        if composed[0] == "granian":
            here, there = (granian.make_context("granian", given[1:]).params for given in (words(name), composed))
            differs = {option for option in there if here[option] != there[option]}
            assert differs <= {"host", "port"}
        elif name != "migrate":
            assert words(name) == composed


def test_every_variable_is_a_setting_and_every_port_somebody_s_own() -> None:
    assert {variable for name in units() for variable in variables(name)} <= VARIABLES
    ports = [granian.make_context("granian", words(name)[1:]).params["port"] for name in ("api", "events")]
    ports += [int(variables("dispatcher")["HEALTH_PORT"].replace("%i", number)) for number in ("1", "2")]
    ports.append(int(variables("worker")["HEALTH_PORT"]))
    assert len(set(ports)) == len(ports)
    guide = (ROOT / "docs" / "deployment.md").read_text()
    assert all(re.search(rf"(?m)^\|.*\b{port}\b.*\|$", guide) for port in ports)


@pytest.mark.parametrize("name", ["dispatcher", "worker"])
def test_every_command_can_be_given(name: str) -> None:
    python, script, command, *arguments = words(name)
    assert (python, script) == ("python", "manage.py")
    load_command_class(get_commands()[command], command).create_parser("manage.py", command).parse_args(arguments)


def test_what_is_stopped_may_end_what_it_began() -> None:
    for name, service in ours().items():
        if name != "migrate":
            assert units()[name]["TimeoutStopSec"] == service["stop_grace_period"].removesuffix("s")
            assert units()[name]["Restart"] == "always"
