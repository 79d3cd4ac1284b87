"""What the documentation names is there."""

import re
import shlex
from pathlib import Path

import pytest
from django.core.management import get_commands, load_command_class

from project.environment import Environment
from scripts import env_example

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.fixture(scope="module")
def tests() -> set[str]:
    """The names of all tests."""
    found = {
        name for path in (ROOT / "tests").rglob("*.py") for name in re.findall(r"def (test_\w+)", path.read_text())
    }
    assert len(found) > 400
    return found


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_test_that_a_document_names_is_there(document: Path, tests: set[str]) -> None:
    named = set(re.findall(r"`(test_\w+)`", document.read_text()))
    assert named <= tests


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_file_that_a_document_links_or_names_is_there(document: Path) -> None:
    text = document.read_text()
    linked = {document.parent / link for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text)}
    named = {
        ROOT / path
        for path in re.findall(
            r"`((?:tests|docs|queues|project|processing|accounts|bench|scripts|clients|examples)/[\w/]+\.\w+)`", text
        )
    }
    assert [str(path) for path in sorted(linked | named) if not path.exists()] == []


def test_every_default_that_is_documented_is_the_settings() -> None:
    text = "".join((ROOT / "docs" / name).read_text() for name in ("operations.md", "accounts.md"))
    told = re.findall(r"^\| `([A-Z_]+)` \| (\S+) \|", text, re.MULTILINE)
    assert len(told) > 15
    for name, default in told:
        assert default == str(Environment.model_fields[name.lower()].default).lower(), name


def test_the_example_of_an_environment_names_every_setting_with_its_default() -> None:
    assert (ROOT / ".env.example").read_text() == env_example.text()


def test_the_index_leads_to_every_document() -> None:
    index = (ROOT / "docs" / "README.md").read_text()
    assert [
        path.name for path in (ROOT / "docs").glob("*.md") if path.name != "README.md" and f"({path.name})" not in index
    ] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_command_that_a_document_names_can_be_given(document: Path) -> None:
    for words in re.findall(r"`manage\.py ([^`]+)`", document.read_text()):
        command, *arguments = shlex.split(words)
        if command == "COMMAND":
            continue
        parser = load_command_class(get_commands()[command], command).create_parser("manage.py", command)
        if arguments:
            parser.parse_args(arguments)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_metric_that_a_document_names_is_counted(document: Path) -> None:
    known = set(re.findall(r"`(ordered_work_\w+)`", (ROOT / "docs" / "metrics.md").read_text()))
    named = set(re.findall(r"`(ordered_work_\w+)[`{]", document.read_text()))
    roles = set(re.findall(r"ordered_work_\w+", (ROOT / "docker" / "postgres" / "roles.sql").read_text()))
    assert named - known - roles <= {"ordered_work_queues_with_work"}  # docker/prometheus/adapter.yml makes it
