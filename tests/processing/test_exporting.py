"""`manage.py user export` writes out all that is known of a user."""

import json
import stat
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from accounts.audit import SecurityEvent
from tests.accounts.people import make_user
from tests.processing.conftest import Script
from tests.processing.crew import Hand, submit
from tests.processing.traces import used
from tests.queues.commands import run

pytestmark = pytest.mark.usefixtures("quick_hashes", "no_limit_reached")


def exported(path: Path, *words: object) -> list[dict[str, Any]]:
    ran = run("user", "export", *words, "--output", path)
    assert ran.status == 0, ran.said
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_an_export_holds_all_that_is_known_of_a_user(
    hand: Hand, script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    user, api = used(hand, script)
    submit(make_user(), "note")
    shown = {one["id"]: one for one in api.get("requests?limit=200").json()["results"]}
    monkeypatch.setattr("queues.operations.export.PAGE", 2)
    lines = exported(tmp_path / "zoe.jsonl", "zoe")
    assert Counter(line["record"] for line in lines) == {
        "account": 1, "session": 3, "security_event": 2, "idempotency_key": 3, "queue": 1, "request": 11, "end": 1,
    }  # fmt: skip
    assert lines[-1] == {"record": "end", "records": len(lines) - 1}
    assert (lines[0]["username"], lines[0]["email"]) == ("zoe", "zoe@example.com")
    assert "password" not in lines[0]
    requests = {line["id"]: line for line in lines if line["record"] == "request"}
    assert requests.keys() == shown.keys()
    for one, told in requests.items():
        assert {name: told[name] for name in shown[one]} == shown[one]
    failed = next(line for line in requests.values() if line["status"] == "failed")
    assert failed["attempts"][-1]["error"]["message"] == "no good"
    assert SecurityEvent.objects.filter(user_id=user.id).order_by("id").last().event == "exported"  # type: ignore[union-attr]


def test_an_export_is_for_the_eyes_of_who_asked_and_overwrites_nothing(hand: Hand, tmp_path: Path) -> None:
    user, path = make_user(), tmp_path / "export.jsonl"
    assert [line["record"] for line in exported(path, user.id)] == ["account", "end"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert run("user", "export", user.id, "--output", path).status == 2
    assert run("user", "export", "nobody-of-this-name").status == 3


def test_an_export_can_be_piped(hand: Hand, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    user = make_user()
    assert run("user", "export", user.username).status == 0
    lines = capfdbinary.readouterr().out.splitlines()
    assert [json.loads(line)["record"] for line in lines] == ["account", "end"]
