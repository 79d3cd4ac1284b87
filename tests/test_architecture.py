"""Who may know whom. The directions are what keeps each part readable, and replaceable, by itself."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
APPS = ("accounts", "queues", "processing")


def imports(path: Path) -> Iterator[str]:
    """The modules that a file imports, wherever in it, those for type checking too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            assert node.level == 0, f"{path}: imports are absolute here"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def files(*folders: str) -> list[Path]:
    found = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    assert found
    return [path for path in found if "migrations" not in path.parts]


def who_imports(module: str, *folders: str) -> set[str]:
    return {
        str(path.relative_to(ROOT))
        for path in files(*folders)
        if any(name == module or name.startswith(f"{module}.") for name in imports(path))
    }


@pytest.mark.parametrize(
    ("app", "stranger"), [("accounts", "queues"), ("accounts", "processing"), ("queues", "processing")]
)
def test_an_app_knows_only_what_lies_below_it(app: str, stranger: str) -> None:
    assert who_imports(stranger, app) == set()


def test_only_one_module_speaks_to_rabbitmq() -> None:
    assert who_imports("pika", *APPS) == {
        "processing/broker/amqp.py",
        "processing/broker/rabbitmq.py",
        "processing/broker/reader.py",
    }


def test_only_one_module_speaks_to_redis() -> None:
    reach = who_imports("redis", *APPS, "project")
    assert {path for path in reach if not path.startswith("scripts/")} == {"project/redis.py"}


def test_dramatiq_is_known_at_the_doorway_only() -> None:
    assert who_imports("dramatiq", *APPS) == {"processing/actors.py", "processing/broker/tokens.py"}


def test_what_a_request_over_http_runs_never_speaks_to_rabbitmq() -> None:
    """Nothing in an HTTP request may wait for the broker: but for the health check, no module of it can reach it."""
    reach = who_imports("processing.broker.rabbitmq", "accounts", "queues", "project")
    assert {path for path in reach if not path.startswith("scripts/")} <= {"project/telemetry/health.py"}


def test_the_check_sees_an_import_wherever_it_stands(tmp_path: Path) -> None:
    sample = tmp_path / "sample.py"
    sample.write_text(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from queues.lifecycle import lease\n"
        "def later() -> None:\n    import pika.exceptions\n"
    )
    assert {"queues.lifecycle", "queues.lifecycle.lease", "pika.exceptions"} <= set(imports(sample))
