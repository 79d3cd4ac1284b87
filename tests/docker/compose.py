"""docker/compose.yml and docker/Dockerfile, as they are read by what starts them."""

import re
import shlex
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from scripts.place import ROOT

DOCKER = ROOT / "docker"


@cache
def composition() -> dict[str, Any]:
    read: dict[str, Any] = yaml.safe_load((DOCKER / "compose.yml").read_text())
    return read


def services() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = composition()["services"]
    return found


def ours() -> dict[str, dict[str, Any]]:
    """The services that run the image of this project."""
    return {name: service for name, service in services().items() if service["image"] == "ordered-work"}


def by_default(value: str) -> str:
    """`value` where no variable is set: `${NAME:-default}` is its default."""
    return re.sub(r"\$\{\w+:-(.*?)\}", r"\1", value)


@cache
def instructions(stage: str) -> list[tuple[str, str]]:
    """What the Dockerfile says in one stage: the instruction and its argument."""
    text = re.sub(r"(?m)^\s*#.*\n", "", (DOCKER / "Dockerfile").read_text()).replace("\\\n", " ")
    lines = [tuple(line.split(None, 1)) for line in text.splitlines() if line.strip()]
    start = next(n for n, (word, rest) in enumerate(lines) if word == "FROM" and rest.endswith(f" AS {stage}"))
    end = next((n for n, (word, _) in enumerate(lines) if word == "FROM" and n > start), len(lines))
    return [(word, rest.strip()) for word, rest in lines[start:end]]


def instruction(stage: str, wanted: str) -> str:
    [found] = [rest for word, rest in instructions(stage) if word == wanted]
    return found


def image_command() -> list[str]:
    return exec_form(instruction("service", "CMD"))


def image_environment() -> dict[str, str]:
    return dict(pair.split("=", 1) for pair in shlex.split(instruction("service", "ENV")))


def exec_form(text: str) -> list[str]:
    """The words of `[..]`, which Docker reads as JSON."""
    words: list[str] = yaml.safe_load(text[text.index("[") :])
    return words


def bind_mounts(service: dict[str, Any]) -> list[Path]:
    """The files of the repository that a service sees."""
    sources = [volume.split(":")[0] for volume in service.get("volumes", [])]
    return [DOCKER / source for source in sources if source.startswith(".")]
