"""What the documentation names is there."""

import ast
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


def test_no_document_is_longer_than_a_reader_can_keep() -> None:
    lengths = {path.name: len(path.read_text().splitlines()) for path in DOCUMENTS}
    assert {name for name, length in lengths.items() if length > 300} <= {"architecture.md"}


def anchors(document: Path) -> set[str]:
    """Of each heading the name that a link to it has."""
    text = re.sub(r"(?ms)^```.*?^```$", "", document.read_text())
    return {
        re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    }


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_heading_that_a_document_links_is_there(document: Path) -> None:
    linked = re.findall(r"\]\(([^)#:]*)#([^)]+)\)", document.read_text())
    assert [
        (path, anchor)
        for path, anchor in linked
        if anchor not in anchors((document.parent / path) if path else document)
    ] == []


def test_every_default_that_is_documented_is_the_settings() -> None:
    text = "".join((ROOT / "docs" / name).read_text() for name in ("tuning.md", "accounts.md"))
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


def steps_of_the_walk() -> list[tuple[str, list[str]]]:
    """The files that docs/architecture.md walks from POST to the recorded row, each with what is named of it."""
    text = (ROOT / "docs" / "architecture.md").read_text()
    walk = text.split("### The walk\n", 1)[1].split("\n## ", 1)[0]
    steps = re.findall(r"^(\d+)\. `([\w/]+\.py)`: (.+)$", walk, re.MULTILINE)
    assert [int(number) for number, _, _ in steps] == list(range(1, len(steps) + 1))
    return [(path, re.findall(r"`([\w.]+)`", told.split(" (")[0].split(". ")[0])) for _, path, told in steps]


def defined_in(path: Path) -> set[str]:
    """Functions, classes, methods (`Class.method`) and the names that a module gives to values."""
    names = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            methods = (one for one in node.body if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef))
            names |= {f"{node.name}.{method.name}" for method in methods}
        if isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return names


def test_the_walk_from_post_to_the_recorded_row_names_what_is_there() -> None:
    for path, named in steps_of_the_walk():
        assert named, path
        assert set(named) <= defined_in(ROOT / path), path


def test_the_walk_from_post_to_the_recorded_row_is_at_most_sixteen_files() -> None:
    files = [path for path, _ in steps_of_the_walk()]
    assert len(set(files)) == len(files)
    assert 10 < len(files) <= 16
