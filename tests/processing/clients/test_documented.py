"""The examples of docs/clients.md and of the clients' own pages, as they stand: each is a program that succeeds."""

import os
import re
import sys
from pathlib import Path

import pytest

from accounts.models import User
from scripts.place import ROOT
from tests.processing.clients.conftest import run_in
from tests.scripts.guides import curl

pytestmark = pytest.mark.timeout(300)
EXAMPLE = re.compile(r"(?s)```(python|bash|ts)\n(.*?)```")


def examples(document: str, language: str) -> list[str]:
    """The programs in that language: one each, but those of a shell are read from the top to the bottom."""
    found = EXAMPLE.findall((ROOT / document).read_text())
    programs = [code for its, code in found if its == language and not re.search(r"pip install|npm |npx ", code)]
    return ["".join(programs)] if language == "bash" else programs


def adapted(code: str, url: str, user: User) -> str:
    assert '"ada"' in code
    return code.replace("http://127.0.0.1:8000", url).replace('"ada"', f'"{user.username}"')


@pytest.mark.parametrize(
    ("document", "language", "count"),
    [("docs/clients.md", "bash", 1), ("docs/clients.md", "python", 4), ("clients/python/README.md", "python", 1)],
)
def test_examples_in_curl_and_python_run(
    document: str, language: str, count: int, url: str, user: User, crew: None, tmp_path: Path
) -> None:
    if language == "bash":
        curl()
    programs = examples(document, language)
    assert len(programs) == count
    path = os.pathsep.join([str(ROOT / "clients" / "python"), *sys.path])
    for code in programs:
        command = [sys.executable, "-c"] if language == "python" else ["bash", "-euo", "pipefail", "-c"]
        told = run_in(tmp_path, *command, adapted(code, url, user), PYTHONPATH=path)
        assert "succeeded" in told.splitlines()[-1], told


@pytest.mark.parametrize(("document", "count"), [("docs/clients.md", 3), ("clients/typescript/README.md", 2)])
def test_examples_in_typescript_compile_and_run(
    document: str, count: int, typescript: Path, url: str, user: User, crew: None, tmp_path: Path
) -> None:
    programs = examples(document, "ts")
    assert len(programs) == count
    (tmp_path / "node_modules").mkdir()
    (tmp_path / "node_modules" / "ordered-work-client").symlink_to(typescript)
    (tmp_path / "package.json").write_text('{"type": "module"}')
    tools = typescript / "node_modules" / ".bin"
    run_in(
        tmp_path, str(tools / "openapi-typescript"), f"{url}/api/schema", "--default-non-nullable", "false",
        "-o", "service.d.ts",
    )  # fmt: skip
    for number, code in enumerate(programs):
        (tmp_path / f"example{number}.ts").write_text(adapted(code, url, user))
    names = [f"example{number}.ts" for number in range(count)]
    types = str(typescript / "node_modules" / "@types")
    run_in(
        tmp_path, str(tools / "tsc"), "--strict", "--module", "nodenext", "--target", "es2022",
        "--typeRoots", types, "--types", "node", *names,
    )  # fmt: skip
    for name in names:
        told = run_in(tmp_path, "node", name.replace(".ts", ".js"))
        assert "succeeded" in told.splitlines()[-1], told
