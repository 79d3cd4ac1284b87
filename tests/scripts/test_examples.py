"""The examples' guides, as they stand: `./run up` with the app, and the request that it then does."""

import json
from pathlib import Path
from typing import Any

import pytest

from scripts.place import ROOT, free_port
from tests.answering import Answer, serving
from tests.scripts.guides import blocks_of, curl, shell, up

RESULTS = {
    "payments": {"order": "4711", "charge": "the charge of 4711"},
    "reports": {"lines": ["Orders of May", "page 1", "page 2", "page 3"]},
    "weather": {"place": "/weather/Berlin", "degrees": 21},
}


def answer(path: str, headers: dict[str, str], body: Any) -> Answer:
    """What the gateway of the payments, and the API of the weather, say."""
    if path == "/charges":
        return 201, {}, {"id": f"the charge of {body['order']}"}
    return 200, {}, {"place": path, "degrees": 21}


def test_each_example_has_a_guide_that_is_tried() -> None:
    assert {path.parent.name for path in (ROOT / "examples").glob("*/README.md")} == set(RESULTS)
    assert {path.name for path in (ROOT / "examples").iterdir() if path.is_dir() and path.name[0] != "_"} == set(
        RESULTS
    )


@pytest.mark.timeout(300)  # all processes start; beside others that takes its time
@pytest.mark.parametrize("name", RESULTS)
def test_an_examples_guide_works_as_it_stands(
    name: str, copy: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    curl()
    port = free_port()
    environment = environment | {"PORT": str(port)}
    (_, start), (_, ask) = blocks_of(ROOT / "examples" / name / "README.md")
    assert f"PYTHONPATH=examples EXTRA_APPS={name} " in start
    assert "http://127.0.0.1:8000/" in ask
    with serving(answer) as address:
        start = start.replace("http://127.0.0.1:9000", address)
        with up(start, copy, environment, tmp_path / "up.log"):
            told = shell(copy, ask.replace("127.0.0.1:8000", f"127.0.0.1:{port}"), environment)
    finished = json.loads(told[told.rindex('{"id"') :])
    assert (finished["status"], finished["result"]) == ("succeeded", RESULTS[name]), told
