"""What the documentation names is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


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
        for path in re.findall(r"`((?:tests|docs|queues|project|processing|accounts|bench)/[\w/]+\.\w+)`", text)
    }
    assert [str(path) for path in sorted(linked | named) if not path.exists()] == []
