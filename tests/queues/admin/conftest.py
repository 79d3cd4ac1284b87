"""Operators and viewers before the admin, and a queue of bob's to control."""

import re
from typing import Any

import pytest

from accounts.models import User
from queues.admin import alarms, bulk_actions, bulk_steps, dashboard
from queues.models import BulkAction
from tests.client import Client
from tests.staff import make_groups, member_of

QUEUES, REQUESTS = "/admin/queues/userqueue/", "/admin/queues/request/"


@pytest.fixture(autouse=True)
def servers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The board asks no server: the threads that do keep connections, and the database could not be dropped."""
    monkeypatch.setattr(dashboard, "checks", lambda: dict.fromkeys(alarms.SERVERS, "ok"))


@pytest.fixture(autouse=True)
def dispatcher(monkeypatch: pytest.MonkeyPatch) -> None:
    """While the confirmation waits, all is done that is due."""

    def ended_soon(action: BulkAction) -> bool:
        while bulk_steps.step():
            pass
        action.refresh_from_db()
        return action.finished_at is not None

    monkeypatch.setattr(bulk_actions, "ended_soon", ended_soon)


@pytest.fixture
def groups(db: None) -> None:
    make_groups()


@pytest.fixture
def operator(groups: None) -> Client:
    return member_of("operator")


@pytest.fixture
def viewer(groups: None) -> Client:
    return member_of("viewer")


@pytest.fixture
def bob() -> User:
    return User.objects.create_user("bob-the-builder")


def chosen(action: str, *rows: Any, **more: Any) -> dict[str, Any]:
    return {"action": action, "_selected_action": [str(row.pk) for row in rows], **more}


def ask(client: Client, path: str, action: str, *rows: Any, **more: Any) -> Any:
    """The confirmation page."""
    page = client.post(path, chosen(action, *rows, **more))
    assert page.status_code == 200, page
    return page


def act(client: Client, path: str, action: str, *rows: Any, **more: Any) -> str:
    """Ask, confirm, and have it done; the page that is seen then."""
    answer = ask(client, path, action, *rows, **more)
    data = {**chosen(action, *rows, **more), "reason": "ticket 4711", **more}
    token = re.search(r'name="confirmed" value="([^"]+)"', answer.content.decode())
    if token is not None:
        answer = client.post(path, {**data, "confirmed": token[1]}, follow=True)
    return str(answer.content.decode())
