"""Who may know whom. The directions are what keeps each part readable, and replaceable, by itself."""

import re
from collections import Counter
from collections.abc import Collection
from functools import cache
from pathlib import Path

import pytest

from tests.source import APPS, ROOT, _module, files, imports, who_imports

NAMES_APPS = {"project.urls", "project.asgi"}  # that is what they are for
# From the top floor down: each room knows only rooms below it.
ROOMS = {
    "queues": """
        management apps admin urls api operations from_python live lifecycle limits enqueue representation
        permissions signals event_log metrics throughput values sql kinds exceptions models limits.models fields states
        notify
    """,
    "processing": """
        management apps testing dispatch operations worker health broker tracebacks handlers results metrics
    """,
    "project": """
        urls asgi web rest telemetry redis admin settings start postgresql rabbitmq_addresses rest.introduction
    """,
    "scripts": "run.__main__ chaos run servers place",
}


@pytest.mark.parametrize(
    ("app", "stranger"), [("accounts", "queues"), ("accounts", "processing"), ("queues", "processing")]
)
def test_an_app_knows_only_what_lies_below_it(app: str, stranger: str) -> None:
    assert who_imports(stranger, app) == set()


def test_only_one_package_speaks_to_rabbitmq() -> None:
    assert who_imports("pika", *APPS) == {
        "processing/broker/amqp.py",
        "processing/broker/loop.py",
        "processing/broker/rabbitmq.py",
        "processing/broker/fetcher.py",
        "processing/broker/source.py",
    }


def test_only_one_module_speaks_to_opentelemetry() -> None:
    assert who_imports("opentelemetry", *APPS, "project") == {"project/telemetry/spans.py"}


def test_only_one_module_speaks_to_redis() -> None:
    reach = who_imports("redis", *APPS, "project")
    assert {path for path in reach if not path.startswith("scripts/")} == {"project/redis.py"}


def test_dramatiq_is_known_at_the_doorway_only() -> None:
    assert who_imports("dramatiq", *APPS) == {
        "processing/actors.py",
        "processing/broker/threads.py",
        "processing/broker/tokens.py",
        "processing/interrupt.py",  # of a handler: the same call as its own time limits
    }


def test_what_a_request_over_http_runs_never_speaks_to_rabbitmq() -> None:
    """Nothing in an HTTP request may wait for the broker."""
    reach = who_imports("processing.broker.rabbitmq", "accounts", "queues", "project")
    assert {path for path in reach if not path.startswith("scripts/")} == set()


@pytest.mark.parametrize(
    ("word", "place"),
    [
        ("rate limit", "project/web/rate_limit.py"),
        ("throttle", "accounts/login_throttle.py"),
        ("backpressure", "processing/broker/amqp.py"),
        ("SSRF", "processing/http_call/ssrf.py"),
        ("watchdog", "processing/worker/watchdog.py"),
        ("heartbeat", "processing/worker/heartbeat.py"),
        ("graceful", "processing/management/service.py"),
        ("liveness", "project/telemetry/health.py"),
        ("reconcile", "queues/lifecycle/reconcile.py"),
        ("backlog", "queues/operations/backlog.py"),
        ("throughput", "queues/throughput.py"),
        ("retention", "queues/operations/retention.py"),
        ("dead letter", "queues/operations/dead_letters.py"),
    ],
)
def test_who_looks_for_a_word_of_the_field_finds_what_does_it(word: str, place: str) -> None:
    pattern = word.replace(" ", "[ _]")
    assert re.search(pattern, place, re.I) or re.search(pattern, (ROOT / place).read_text(), re.I)
    found = [path for path in files(*APPS, "project") if re.search(pattern, path.read_text(), re.I)]
    assert len(found) <= 25, "it is said of too much to lead anywhere"


@cache
def house() -> dict[str, set[str]]:
    """Each module of ours, with those of ours that it imports."""
    modules = {_module(path): path for path in files(*APPS, "project", "scripts")}
    return {
        name: {other for other in _nearest(set(imports(path)), modules.keys()) if other != name}
        for name, path in modules.items()
    }


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


FLOORS = ("project", *APPS)  # upwards
NAMED = re.compile(r"""\{% (?:static|extends|include) ["']([^"']+)["']""")


def test_no_page_needs_a_file_of_a_floor_above_it() -> None:
    """A template, or a style sheet or script that it names."""
    ours = {
        path.as_posix().rpartition(f"/{kind}/")[2]: floor
        for floor, app in enumerate(FLOORS)
        for kind in ("templates", "static")
        for path in (ROOT / app).rglob("*.*")
        if kind in path.relative_to(ROOT).parts
    }
    upwards = [
        (str(path.relative_to(ROOT)), name)
        for floor, app in enumerate(FLOORS)
        for path in (ROOT / app).rglob("templates/**/*.html")
        for name in NAMED.findall(path.read_text())
        if ours.get(name, 0) > floor  # the others are Django's, and of packages
    ]
    assert upwards == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    circles = [name for name, others in house().items() if any(name in reached(other) for other in others)]
    assert circles == []


def test_no_room_is_crowded() -> None:
    rooms = Counter(path.parent for path in files(*APPS, "project", "scripts", "bench") if path.name != "__init__.py")
    assert [str(room.relative_to(ROOT)) for room, modules in rooms.items() if modules > 16] == []


def test_no_file_of_tests_is_longer_than_a_reader_can_keep() -> None:
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in files("tests")}
    assert {name for name, length in lengths.items() if length > 300} == set()


def test_the_check_sees_an_import_wherever_it_stands(tmp_path: Path) -> None:
    sample = tmp_path / "sample.py"
    sample.write_text(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from queues.lifecycle import lease\n"
        "def later() -> None:\n    import pika.exceptions\n"
    )
    assert {"queues.lifecycle", "queues.lifecycle.lease", "pika.exceptions"} <= set(imports(sample))


LONGEST_FILE = 300  # lines


def test_no_file_is_longer_than_a_reader_can_hold() -> None:
    long = {
        str(path.relative_to(ROOT))
        for path in files(*APPS, "project", "scripts")
        if len(path.read_text().splitlines()) > LONGEST_FILE
    }
    assert long == set()
