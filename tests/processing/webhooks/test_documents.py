"""docs/webhooks.md: its examples check real messages, and the app can be left out."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

from processing.webhooks import owning
from processing.webhooks.delivery import signing
from scripts.place import ROOT
from tests.processing.crew import new_user
from tests.processing.webhooks.messages import cancelled
from tests.processing.webhooks.receiver import Got, Receiver

TEXT = (ROOT / "docs" / "webhooks.md").read_text()
Verify = Callable[[str, dict[str, str], bytes], bool]


def example(language: str) -> str:
    found = re.search(rf"(?s)```{language}\n(.*?)```", TEXT)
    assert found
    return found[1]


def in_python(secret: str, headers: dict[str, str], body: bytes) -> bool:
    names: dict[str, Any] = {}
    exec(example("python"), names)  # noqa: S102  (ours)
    return bool(names["verify"](secret, headers, body))


def in_node(secret: str, headers: dict[str, str], body: bytes) -> bool:
    node = shutil.which("node")
    if node is None:
        pytest.skip("Node is not installed.")
    asked = json.dumps([secret, headers, body.decode()])
    call = f"const [s, h, b] = {asked}; console.log(verify(s, h, Buffer.from(b)));"
    done = subprocess.run([node, "-e", example("javascript") + call], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)  # type: ignore[no-any-return]


@pytest.fixture
def got(transactional_db: None, receiver: Receiver, deliver: Callable[..., None]) -> tuple[Got, str, str]:
    """A message that was really delivered, after a change of the secret."""
    user = new_user()
    webhook = owning.create(user.id, receiver.at(), ["request.cancelled"], enabled=True)
    secret, _ = owning.rotate(webhook)
    cancelled(user, 1)
    deliver(lambda: receiver.got)
    return receiver.got[0], secret, webhook.secret


@pytest.mark.parametrize("verify", [in_python, in_node])
def test_the_documented_lines_check_what_is_delivered(verify: Verify, got: tuple[Got, str, str]) -> None:
    message, new, old = got
    assert verify(new, message.headers, message.body)
    assert verify(old, message.headers, message.body)
    assert not verify(signing.new_secret(), message.headers, message.body)
    assert not verify(new, message.headers, message.body.replace(b"cancelled", b"succeeded"))
    assert not verify(new, message.headers | {"webhook-id": "msg_other"}, message.body)
    late = signing.headers("msg_1", int(time.time()) - 400, b"{}", new)
    assert not verify(new, late, b"{}")


LEFT_OUT = """
import os, django
django.setup()
from django.apps import apps
from django.core.management import call_command, get_commands
from django.urls import resolve
from django.urls.exceptions import Resolver404
assert not apps.is_installed("processing.webhooks")
assert "deliver_webhooks" not in get_commands()
call_command("check")
from drf_spectacular.generators import SchemaGenerator
paths = SchemaGenerator().get_schema(request=None, public=True)["paths"]
assert "/api/v1/requests" in paths and not any("webhook" in path for path in paths)
from project.rest.pages import PLACES
assert "webhooks" not in PLACES
try:
    resolve("/api/v1/webhooks")
except Resolver404:
    pass
else:
    raise AssertionError("it is served")
import scripts.run.application as application
assert application.extras(0) == []
from accounts.models import User
from queues import kinds
from queues.enqueue.accept import accept
from queues.lifecycle import control
from queues.values import Submission
user = User.objects.create(username="left-out")
[one] = accept(user.id, [Submission(kinds.find("demo.echo"), "1")], session_id=None)
control.cancel(one.submission.id)
user.delete()
import sys
assert not any(name.startswith("processing.webhooks") for name in sys.modules), "the core imports it"
print("fine")
"""


def test_without_the_app_the_rest_works(transactional_db: None) -> None:
    environment = {**os.environ, "WEBHOOKS": "false"}
    done = subprocess.run(
        [sys.executable, "-c", LEFT_OUT], env=environment, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("fine\n")


def test_every_event_and_route_is_documented() -> None:
    from processing.webhooks.models import Event
    from processing.webhooks.urls import urlpatterns

    assert all(f"`{event}`" in TEXT for event in Event)
    for one in urlpatterns:
        last = str(one.pattern).rpartition("/")[2]
        assert last in TEXT or last.startswith("<"), last
