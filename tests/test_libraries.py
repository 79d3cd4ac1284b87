"""Nothing private to a library is used, but for what is listed here with its test."""

import ast
from collections.abc import Collection, Iterator
from pathlib import Path

from tests.source import APPS, ROOT, files, tree, who_imports

# What is private to a library and used all the same: each behind one function or class, whose test fails if it changes.
PRIVATE = {
    ("accounts/models.py", "_password"),  # Django's: set by set_password until it is saved
    ("project/rest/openapi.py", "_map_serializer"),
    ("queues/metrics.py", "_buckets"),
    ("queues/metrics.py", "_sum"),
    ("queues/metrics.py", "_upper_bounds"),
    ("tests/queues/test_statements.py", "psycopg._queries"),
}
UNDOCUMENTED = {  # modules that look public and are in no documentation
    "json.decoder": set(),
    "pika.adapters.utils": {"processing/broker/amqp.py", "scripts/servers/rabbitmq.py", "tests/processing/test_tls.py"},
    "prometheus_client.mmap_dict": {"project/telemetry/multiprocess.py"},
}
# Documented all the same, by Python and Django.
PUBLIC = {"_asdict", "_current_frames", "_exit", "_fields", "_getframe", "_make", "_meta", "_replace", "_state"}


def private_names(path: Path, ours: set[str]) -> Iterator[str]:
    """Names with an underscore that a file takes from elsewhere, but for those that `ours` has."""
    for node in ast.walk(tree(path)):
        names: list[str] = []
        match node:
            case ast.Attribute(attr=name):
                names = [name]
            case ast.Call(func=ast.Name(id="getattr"), args=[_, ast.Constant(value=str(name)), *_]):
                names = [name]
            case ast.ImportFrom(module=str(module)):
                names = [module] if "._" in module else [alias.name for alias in node.names]
        for name in names:
            last = name.rpartition(".")[2]
            if last.startswith("_") and not last.startswith("__") and last not in ours | PUBLIC:
                yield name


def private_definitions(paths: Collection[Path]) -> set[str]:
    """All names with an underscore that the files define themselves: what they are is theirs to change."""
    found = {path.stem for path in paths}
    for path in paths:
        for node in ast.walk(tree(path)):
            match node:
                case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                    found.add(name)
                case ast.Attribute(attr=name, ctx=ast.Store()) | ast.Name(id=name, ctx=ast.Store()):
                    found.add(name)
    return {name for name in found if name.startswith("_")}


def test_nothing_private_to_a_library_is_used_but_what_is_listed() -> None:
    everything = files(*APPS, "project", "scripts", "clients", "bench", "tests")
    ours = private_definitions(everything)
    used = {(str(path.relative_to(ROOT)), name) for path in everything for name in private_names(path, ours)}
    assert used == PRIVATE
    assert {module: who_imports(module, *APPS, "project", "scripts", "bench", "tests") for module in UNDOCUMENTED} == (
        UNDOCUMENTED
    )


def test_the_check_sees_what_is_private(tmp_path: Path) -> None:
    sample = tmp_path / "sample.py"
    sample.write_text(
        "from psycopg._queries import X\nfrom json import _default_decoder\nself._mine = connection._sock\n"
        "getattr(request, '_request', request)\npoint._replace(x=1)\n"
    )
    found = set(private_names(sample, private_definitions([sample])))
    assert found == {"psycopg._queries", "_default_decoder", "_sock", "_request"}
