"""Every test runs against the real PostgreSQL, RabbitMQ and Redis, in places of this session's own.

Where pytest-xdist runs several processes, each has its own: servers that the first had to start serve them all.
"""

import atexit
import os
import secrets
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from scripts.place import ROOT, SetupError
from scripts.servers import browser as chromium
from scripts.servers.borrowing import borrowed
from scripts.servers.process import signals_interrupt

if TYPE_CHECKING:
    from selenium.webdriver.chrome.webdriver import WebDriver

_SESSION = ExitStack()
_PID = os.getpid()


def _give_back() -> None:
    if os.getpid() == _PID:  # a fork of ours has borrowed nothing
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        _SESSION.close()


# Here and not in a fixture: the settings read the environment once, when Django starts.
atexit.register(_give_back)
signals_interrupt()  # so that a session that is told to stop cleans up like one that ends
if os.environ.pop("PYTEST_XDIST_WORKER", None):  # not for a pytest that a test starts
    os.environ.pop("SERVERS", None)  # the first process has looked; its variables say what it found
try:
    SERVERS = _SESSION.enter_context(borrowed("test", keep_servers=False))
except SetupError as wrong:
    raise pytest.UsageError(str(wrong)) from None
os.environ.update(
    SERVERS.environment(), DEBUG="1", OPTIONAL_KINDS="demo,http.call", SECRET_KEY=secrets.token_urlsafe(50)
)
os.environ["DJANGO_SETTINGS_MODULE"] = "project.settings"
(ROOT / "staticfiles").mkdir(exist_ok=True)

import django

django.setup()

import redis
from django.conf import settings
from django.db import connection

from accounts.hashers import OrderlyArgon2
from project import redis as redis_client
from project.postgresql import limits


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes() -> None:
    """Or Django would read the settings, in each process, before there are places of its own."""
    del os.environ["DJANGO_SETTINGS_MODULE"]


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """One of several processes is killed if it takes long to end, once it has said that it is done."""
    if hasattr(session.config, "workerinput"):
        _give_back()


@pytest.fixture(scope="session")
def django_db_modify_db_settings() -> None:
    """The test database has the name that DATABASE_URL says, so that processes which a test starts find it."""
    connection.settings_dict["TEST"]["NAME"] = connection.settings_dict["NAME"]


@pytest.fixture(autouse=True, scope="session")
def _empty_by_delete() -> Iterator[None]:
    """Django empties a database that commits by TRUNCATE, and makes what migrations brought anew: a second for each
    test. This takes a few ms, and leaves content types, permissions and groups alone."""

    kept = {"django_content_type", "auth_permission", "auth_group", "auth_group_permissions", "django_migrations"}
    append_only = "accounts_securityevent"  # no line of it can be deleted

    def empty(*_: object, **__: object) -> None:
        written = set(connection.introspection.django_table_names(only_existing=True, include_views=False))
        with connection.cursor() as cursor:  # at once: what points to each other is looked at when it commits
            cursor.execute("; ".join(f"DELETE FROM {table}" for table in sorted(written - kept - {append_only})))
            cursor.execute(f"SELECT EXISTS (SELECT FROM {append_only})")
            if cursor.fetchone()[0]:
                cursor.execute(f"TRUNCATE {append_only}")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("django.test.testcases.call_command", empty)
        yield


@pytest.fixture(autouse=True)
def _as_a_command() -> Iterator[None]:
    """A test that starts a part of the service in this process leaves the limits of its role to no other test."""
    yield
    limits.play("command")


@pytest.fixture
def quick_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Argon2 with the least it can do, for tests that are not about what a hash costs."""
    for cost, least in {"time_cost": 1, "memory_cost": 8, "parallelism": 1}.items():
        monkeypatch.setattr(OrderlyArgon2, cost, least)


@pytest.fixture
def no_limit_reached() -> Iterator[None]:
    """Nothing is counted yet, and Redis is believed to be there."""
    with redis.Redis.from_url(settings.ENV.redis_url) as client:
        for key in client.scan_iter(redis_client.own(f"{settings.ENV.queue_prefix}limit:*")):
            client.delete(key)
    redis_client._breaker.closed = True
    yield
    redis_client._breaker.closed = True


@pytest.fixture
def another_redis(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Has this process use the Redis of another address, of which it knows nothing yet."""

    def use(url: str) -> None:
        monkeypatch.setattr(settings.ENV, "redis_url", url)
        monkeypatch.setattr(redis_client, "_connection", redis_client._Connection())
        monkeypatch.setattr(redis_client, "_breaker", redis_client._Breaker())

    return use


@pytest.fixture(scope="session")
def browser() -> Iterator["WebDriver"]:
    """Chromium without a window. A machine that has none and cannot get one fails here, and says what to install."""
    from selenium import webdriver

    try:
        program, driver = chromium.find()
    except SetupError as wrong:
        pytest.fail(str(wrong), pytrace=False)
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for argument in chromium.arguments():
        options.add_argument(argument)
    page = webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=driver))
    yield page
    page.quit()
