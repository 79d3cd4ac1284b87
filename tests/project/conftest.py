from collections.abc import Iterator

import pytest
from django.db import connection

from project.telemetry import health
from queues.operations import backlog


@pytest.fixture(autouse=True)
def _without_limits(no_limit_reached: None) -> None:
    """Every test starts with nothing counted."""


@pytest.fixture
def nothing_cached(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The health checks look anew; their threads' connections are closed, or the database could not be dropped."""
    recent = health._Recent()
    monkeypatch.setattr(health, "_recent", recent)
    monkeypatch.setattr(backlog, "recent", backlog.Recent())
    yield
    for thread in recent.threads.values():
        thread.submit(lambda: connection.close())  # its own, not that of this thread
        thread.shutdown(wait=True)
