"""docs/tutorial.md and docs/recipes.md, as they stand: files are written, commands run, `./run up` does its request."""

import json
import os
import re
from pathlib import Path

import pytest

from scripts.place import ROOT, free_port
from tests.scripts.guides import blocks_of, curl, shell, up

UP = "EXTRA_APPS=reports ./run up\n"


@pytest.mark.timeout(600)  # two sessions of tests and all processes start; beside others that takes its time
def test_the_tutorial_works_as_it_stands(copy: Path, environment: dict[str, str], tmp_path: Path) -> None:
    curl()
    port = free_port()
    environment = environment | {"PORT": str(port)}
    environment.pop("PYTHONPATH", None)
    tests = passed = 0
    finished = None
    following = iter([block for name in ("tutorial", "recipes") for block in blocks_of(ROOT / "docs" / f"{name}.md")])
    for language, text in following:
        if language == "python":
            path = copy / text.splitlines()[0].removeprefix("# ")
            assert not path.exists(), "each file is written once"
            path.write_text(text)
            tests += len(re.findall(r"^def test_", text, re.MULTILINE))
        elif text == UP:
            with up(UP, copy, environment, tmp_path / "up.log"):
                _, request = next(following)
                assert "http://127.0.0.1:8000/" in request
                told = shell(copy, request.replace("127.0.0.1:8000", f"127.0.0.1:{port}"), environment)
            finished = json.loads(told[told.rindex('{"id"') :])
            assert finished["status"] == "succeeded", told
            assert finished["result"] == {"lines": ["Orders of May", "page 1", "page 2", "page 3"]}, told
        else:
            assert language == "bash"
            said = shell(copy, text, environment)
            passed += sum(map(int, re.findall(r"(\d+) passed", said)))
    assert finished, "its `./run up` was tried"
    assert passed == tests > 0, "each test of the tutorial ran"
    assert not os.path.lexists(copy / ".local" / "environments"), "it ran from the environment that was there"
