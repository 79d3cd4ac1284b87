"""Each SQL statement stands by name in one place, and one place writes counters and states."""

import ast
import re
from pathlib import Path

from tests.source import APPS, ROOT, WRITING_SQL, _module, files, who_imports

SQL = re.compile(
    r"\bSELECT\s|\bINSERT INTO\s|\bUPDATE\s+\w+\s.*\bSET\s|\bDELETE FROM\s|\bset_config\(|\bpg_\w+\(", re.DOTALL
)
WITH_SQL = {
    "accounts/mail/delivery.py": "one statement of its own",
    "accounts/retention.py": "its statements stand by name at its top",
    "processing/kafka/statements.py": "an app that the core does not import has its own",
    "processing/schedules/statements.py": "an app that the core does not import has its own",
    "processing/webhooks/statements.py": "an app that the core does not import has its own",
    "project/admin/base.py": "the planner's estimate of any table",
    "project/postgresql/base.py": "the session itself",
    "project/postgresql/pooling.py": "the session itself",
    "project/telemetry/health.py": "the session itself",
}


def sql_in(path: Path) -> list[int]:
    """The lines of a file at which SQL text stands; documentation that speaks of it is none."""
    tree = ast.parse(path.read_text())
    prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    strings = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    return [node.lineno for node in strings if id(node) not in prose and SQL.search(str(node.value))]


def test_sql_stands_by_name_in_one_place() -> None:
    with_sql = {str(path.relative_to(ROOT)) for path in files(*APPS, "project") if sql_in(path)}
    elsewhere = {name for name in with_sql if not name.startswith("queues/sql/")}
    assert elsewhere == set(WITH_SQL)


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
    "last_seq", "published_seq", "done_seq", "given_up_ahead", "state", "state_since", "fence", "worker_id",
    "lease_until", "claimed", "claimed_at", "crash_recovery_until_seq", "wake_at", "idle_since", "moved_at", "status",
    "seq", "attempt", "bytes_stored", "waiting_limit",
}  # fmt: skip
WRITERS = ("queues/lifecycle/", "queues/enqueue/accept.py", "queues/sql/", "queues/models.py")
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
