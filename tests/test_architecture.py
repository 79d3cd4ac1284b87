"""Who may know whom. The directions are what keeps each part readable, and replaceable, by itself."""

import ast
import re
from collections import Counter
from collections.abc import Collection, Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
APPS = ("accounts", "queues", "processing")
NAMES_APPS = {"project.urls", "project.asgi"}  # that is what they are for
# From the top floor down: each room knows only rooms below it.
ROOMS = {
    "queues": """
        management apps admin urls api operations from_python live signals lifecycle limits enqueue representation
        permissions event_log metrics throughput values sql kinds exceptions models limits.models fields states notify
    """,
    "processing": "management apps dispatch operations worker health broker tracebacks handlers results metrics",
    "project": """
        urls asgi web rest telemetry redis admin settings start postgresql rabbitmq_addresses rest.introduction
    """,
    "scripts": "run.__main__ chaos run servers place",
}


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def imports(path: Path) -> Iterator[str]:
    """The modules that a file imports, wherever in it, those for type checking too."""
    for node in ast.walk(tree(path)):
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
        "processing/broker/fetcher.py",
    }


def test_only_one_module_speaks_to_opentelemetry() -> None:
    assert who_imports("opentelemetry", *APPS, "project") == {"project/telemetry/spans.py"}


def test_only_one_module_speaks_to_redis() -> None:
    reach = who_imports("redis", *APPS, "project")
    assert {path for path in reach if not path.startswith("scripts/")} == {"project/redis.py"}


def test_dramatiq_is_known_at_the_doorway_only() -> None:
    assert who_imports("dramatiq", *APPS) == {
        "processing/actors.py",
        "processing/broker/tokens.py",
        "processing/worker/attempt.py",  # to interrupt a handler: the same call as its own time limits
    }


def test_what_a_request_over_http_runs_never_speaks_to_rabbitmq() -> None:
    """Nothing in an HTTP request may wait for the broker: but for the health check, no module of it can reach it."""
    reach = who_imports("processing.broker.rabbitmq", "accounts", "queues", "project")
    assert {path for path in reach if not path.startswith("scripts/")} <= {"project/telemetry/health.py"}


@cache
def house() -> dict[str, set[str]]:
    """Each module of ours, with those of ours that it imports."""
    modules = {_module(path): path for path in files(*APPS, "project", "scripts")}
    return {
        name: {other for other in _nearest(set(imports(path)), modules.keys()) if other != name}
        for name, path in modules.items()
    }


def _module(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def _nearest(names: set[str], modules: Collection[str]) -> set[str]:
    """The modules among the names; of a name inside a module, that module, but of a module no package above it."""
    found = set()
    for name in names:
        head = name if name in modules else name.rpartition(".")[0]
        if head in modules:
            found.add(head)
    return {name for name in found if not any(other.startswith(f"{name}.") for other in found)}


def reached(*starts: str) -> set[str]:
    """All that is imported by the modules, by what they import, and so on."""
    found: set[str] = set()
    following = list(starts)
    while following:
        name = following.pop()
        if name not in found:
            found.add(name)
            following += house()[name]
    return found


def test_nothing_that_an_http_request_loads_reaches_rabbitmq() -> None:
    """By whatever way: from the addresses, and from the doors in front of them."""
    reach = reached(*NAMES_APPS, "project.settings", "accounts.apps", "queues.apps")
    assert "queues.enqueue.accept" in reach
    assert not {name for name in reach if name.startswith("processing")}


def test_nothing_in_project_knows_an_app() -> None:
    upwards = {
        (name, other)
        for name, others in house().items()
        for other in others
        if name.startswith("project.") and name not in NAMES_APPS and other.partition(".")[0] != "project"
    }
    assert upwards == set()


@pytest.mark.parametrize("app", ROOMS)
def test_each_room_knows_only_rooms_below_it(app: str) -> None:
    rooms = ROOMS[app].split()

    def room(name: str) -> int | None:
        inside = name.removeprefix(f"{app}.")
        above = [n for n, room in enumerate(rooms) if f"{inside}.".startswith(f"{room}.")]
        return max(above, key=lambda n: len(rooms[n]), default=None)

    pairs = [(name, other) for name, others in house().items() for other in others]
    inside = [pair for pair in pairs if all(name.startswith(f"{app}.") for name in pair)]
    assert inside
    back = [
        (n, o) for n, o in inside if (here := room(n)) is not None and (there := room(o)) is not None and there < here
    ]
    assert back == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    circles = [name for name, others in house().items() if any(name in reached(other) for other in others)]
    assert circles == []


def test_no_room_is_crowded() -> None:
    rooms = Counter(path.parent for path in files(*APPS, "project", "scripts", "bench") if path.name != "__init__.py")
    assert [str(room.relative_to(ROOT)) for room, modules in rooms.items() if modules > 16] == []


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


def test_the_check_sees_an_import_wherever_it_stands(tmp_path: Path) -> None:
    sample = tmp_path / "sample.py"
    sample.write_text(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from queues.lifecycle import lease\n"
        "def later() -> None:\n    import pika.exceptions\n"
    )
    assert {"queues.lifecycle", "queues.lifecycle.lease", "pika.exceptions"} <= set(imports(sample))


SQL = re.compile(
    r"\bSELECT\s|\bINSERT INTO\s|\bUPDATE\s+\w+\s.*\bSET\s|\bDELETE FROM\s|\bset_config\(|\bpg_\w+\(", re.DOTALL
)
WITH_SQL = {
    "accounts/mail/delivery.py": "one statement of its own",
    "accounts/retention.py": "its statements stand by name at its top",
    "processing/kafka/statements.py": "an app that the core does not import has its own",
    "processing/webhooks/statements.py": "an app that the core does not import has its own",
    "project/admin/base.py": "the planner's estimate of any table",
    "project/postgresql/base.py": "the session itself",
    "project/postgresql/pooling.py": "the session itself",
    "project/telemetry/health.py": "the session itself",
}
SQL_TO_MOVE = {"processing/worker/watchdog.py", "queues/admin/bulk_actions.py"}  # may only become fewer


def sql_in(path: Path) -> list[int]:
    """The lines of a file at which SQL text stands; documentation that speaks of it is none."""
    tree = ast.parse(path.read_text())
    prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    strings = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    return [node.lineno for node in strings if id(node) not in prose and SQL.search(str(node.value))]


def test_sql_stands_by_name_in_one_place() -> None:
    with_sql = {str(path.relative_to(ROOT)) for path in files(*APPS, "project") if sql_in(path)}
    elsewhere = {name for name in with_sql if not name.startswith("queues/sql/")}
    assert elsewhere - SQL_TO_MOVE == set(WITH_SQL)


def test_each_statement_says_why_it_is_so() -> None:
    bare = []
    for path in [*files("queues/sql"), *(ROOT / name for name in WITH_SQL if name.endswith("statements.py"))]:
        lines = path.read_text().splitlines()
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call) and _called(node.value) == "Statement":
                text = node.value.args[0]
                of_a_template = isinstance(text, ast.Call) and _called(text) == "format"
                if not of_a_template and not lines[node.lineno - 2].strip():
                    bare.append(f"{path.name}:{node.lineno}")
    assert bare == []


def _called(call: ast.Call) -> str:
    return call.func.id if isinstance(call.func, ast.Name) else getattr(call.func, "attr", "")


def test_the_check_sees_sql_wherever_it_stands(tmp_path: Path) -> None:
    sample = tmp_path / "sample.py"
    sample.write_text(
        '"""SELECT is spoken of here."""\nOLD = f"SELECT id FROM {1}"\n\n\ndef later(run):\n    """UPDATE a SET b."""\n'
        '    run("DELETE FROM a")\n    run("UPDATE a\\n SET b = 1")\n    log = "Select one, or SELECTED"\n'
    )
    assert sql_in(sample) == [2, 7, 8]


# What says where a queue and a request stand. Only the verbs of lifecycle/ and accepting write it, by queues/sql/.
MOVED = {
    "last_seq", "published_seq", "done_seq", "given_up_ahead", "state", "state_since", "fence", "holder", "lease_until",
    "claimed", "claimed_at", "careful_to", "wake_at", "idle_since", "moved_at", "status", "seq", "attempt",
}  # fmt: skip
WRITERS = ("queues/lifecycle/", "queues/enqueue/accept.py", "queues/sql/", "queues/models.py")
WRITING_SQL = {f"queues.sql.{name}" for name in ("accept", "control", "dispatch", "permits", "protocol")}
OWN_TABLES = (
    "processing/webhooks/",
    "processing/schedules/",
    "queues/limits/",
)  # with a `state` and a `seq` of their own


def writes(path: Path) -> set[str]:
    """The counters and states that a file writes by the ORM, or sets in a row that could be saved."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            if node.func.attr in {"update", "create", "get_or_create", "update_or_create"}:
                found |= {keyword.arg for keyword in node.keywords if keyword.arg in MOVED}
            elif node.func.attr in {"save", "bulk_update", "bulk_create"}:
                found.add(node.func.attr)
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            # An object's own attribute, or what a lease remembers of its queue: no row.
            own = ast.unparse(node.value).rpartition(".")[2] in {"self", "lease"}
            found |= {node.attr} & MOVED if not own else set()
    return {name for name in found if name}


def test_only_lifecycle_and_accepting_write_counters_and_states() -> None:
    others = {str(path.relative_to(ROOT)): path for path in files("queues", "processing")}
    found = {
        (name, column)
        for name, path in others.items()
        if not name.startswith((*WRITERS, *OWN_TABLES))
        for column in writes(path)
    }
    assert found == set()


def test_statements_that_write_them_are_run_by_lifecycle_and_accepting_only() -> None:
    users = {name for module in WRITING_SQL for name in who_imports(module, *APPS)}
    assert {name for name in users if not name.startswith(WRITERS)} == set()
    written = re.compile(
        rf"\b(INSERT INTO|UPDATE) queues_(userqueue|request)\b(?! k)[^;]*?\b(SET|,)\s*({'|'.join(MOVED)}) = ", re.DOTALL
    )
    reading = [path for path in files("queues/sql") if _module(path) not in WRITING_SQL]
    assert [path.name for path in reading if written.search(path.read_text())] == []
    assert all(written.search((ROOT / f"{module.replace('.', '/')}.py").read_text()) for module in WRITING_SQL)


def test_the_check_sees_who_writes(tmp_path: Path) -> None:
    sample = tmp_path / "sample.py"
    sample.write_text(
        "queue.done_seq += 1\nqueue.wake_at, other = None, 1\nself.state = turn.lease.state = 2\n"
        "rows.update(status=3, other=4)\nqueue.save()\nrows.filter(seq=5)\n"
    )
    assert writes(sample) == {"done_seq", "wake_at", "status", "save"}


LONGEST_FILE = 300  # lines
STILL_LONGER = {  # may only become fewer
    "accounts/models.py", "project/web/rate_limit.py", "queues/admin/bulk_actions.py",
}  # fmt: skip


def test_no_file_is_longer_than_a_reader_can_hold() -> None:
    long = {
        str(path.relative_to(ROOT))
        for path in files(*APPS, "project", "scripts")
        if len(path.read_text().splitlines()) > LONGEST_FILE
    }
    assert long - STILL_LONGER == set()
