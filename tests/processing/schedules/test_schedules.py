"""Schedules as their owners and operators handle them: the API, the command."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings

from accounts.models import User
from processing.handlers import handler
from processing.schedules import writing
from processing.schedules.models import Schedule
from queues.enqueue import permissions
from queues.models import OperatorAction, Request, UserQueue
from queues.operations.export import records
from scripts.place import ROOT
from tests.processing.crew import new_user
from tests.processing.kinds import kept
from tests.queues.api import Caller
from tests.queues.commands import run

pytestmark = pytest.mark.django_db

BODY = {"name": "nightly", "kind": "demo.echo", "payload": {"n": 1}, "cron": "30 6 * * *", "time_zone": "Europe/Berlin"}


def add(caller: Caller, **fields: Any) -> Any:
    answer = caller.post("schedules", {**BODY, **fields})
    assert answer.status == 201, answer.content
    return answer.json


def wrong(caller: Caller, **fields: Any) -> dict[str, str]:
    answer = caller.post("schedules", {name: value for name, value in {**BODY, **fields}.items() if value is not ...})
    assert answer.status == 400, answer.content
    assert not Schedule.objects.exists()
    return answer.errors


def test_a_schedule_is_made_shown_changed_and_removed() -> None:
    ada = Caller()
    answer = ada.post("schedules", {**BODY, "payload": {"price": 1.50}})
    made = answer.json
    assert answer.headers["Location"] == f"/api/v1/schedules/{made['id']}"
    assert b'{"price": 1.5' in answer.content
    assert (made["missed"], made["enabled"], made["last_request"], made["last_error"]) == ("one", True, None, None)
    assert len(made["next_at"]) == 3
    assert all(at.endswith(("T04:30:00Z", "T05:30:00Z")) for at in made["next_at"])
    assert ada.get(f"schedules/{made['id']}").json == made
    assert ada.get("schedules").json == {"results": [made]}
    changed = ada.send("PATCH", f"schedules/{made['id']}", {"every_seconds": 60, "time_zone": "UTC", "missed": "skip"})
    assert (changed.json["cron"], changed.json["every_seconds"], changed.json["missed"]) == (None, 60, "skip")
    assert changed.json["payload"] == {"price": 1.5}
    back = ada.send("PATCH", f"schedules/{made['id']}", {"cron": "* * * * *", "payload": None}).json
    assert (back["every_seconds"], back["payload"]) == (None, None)
    assert ada.send("DELETE", f"schedules/{made['id']}").status == 204
    assert ada.get(f"schedules/{made['id']}").status == 404


def test_what_does_not_fit_is_named_and_nothing_is_kept() -> None:
    ada = Caller()
    assert wrong(ada, name=...) == {"name": "required"}
    assert wrong(ada, payload=...) == {"payload": "required"}
    assert wrong(ada, kind="demo.none") == {"kind": "unknown_kind"}
    assert wrong(ada, version=9) == {"version": "unknown_version"}
    assert wrong(ada, kind="demo.steps", payload={"steps": 0}) == {"payload.steps": "greater_than_equal"}
    assert wrong(ada, cron="* * *") == {"cron": "invalid"}
    assert wrong(ada, cron=None) == {"cron": "required"}
    assert wrong(ada, every_seconds=60) == {"every_seconds": "both"}
    assert wrong(ada, cron=None, every_seconds=60) == {"time_zone": "without_cron"}
    assert wrong(ada, cron=None, every_seconds=5, time_zone=...) == {"every_seconds": "min_value"}
    assert wrong(ada, cron=None, every_seconds="60", time_zone=...) == {"every_seconds": "invalid"}
    assert wrong(ada, time_zone="Europe/Atlantis") == {"time_zone": "invalid"}
    assert wrong(ada, missed="some") == {"missed": "invalid_choice"}
    assert wrong(ada, enabled="yes") == {"enabled": "invalid"}
    assert wrong(ada, colour="red") == {"colour": "unknown"}
    add(ada)
    again = ada.post("schedules", BODY)
    assert (again.status, again.errors) == (400, {"name": "unique"})
    made = ada.get("schedules").json["results"][0]
    broken = ada.send("PATCH", f"schedules/{made['id']}", {"name": "other", "cron": "x"})
    assert broken.errors == {"cron": "invalid"}
    assert ada.get("schedules").json["results"] == [made]


def test_somebody_elses_schedule_is_not_there() -> None:
    ada, bob = Caller(), Caller()
    path = f"schedules/{add(ada)['id']}"
    assert bob.get("schedules").json == {"results": []}
    none = bob.get("schedules/01890000-0000-7000-8000-000000000000").json
    for method, path_, body in (
        ("GET", path, None),
        ("PATCH", path, {"enabled": False}),
        ("DELETE", path, None),
        ("POST", f"{path}/pause", None),
        ("POST", f"{path}/resume", None),
        ("POST", f"{path}/run-now", None),
    ):
        answer = bob.send(method, path_, body)
        assert answer.status == 404
        assert {**answer.json, "request_id": ""} == {**none, "request_id": ""}
    assert Schedule.objects.get().enabled
    assert add(bob)["name"] == "nightly", "names are each user's own"


def test_nobody_has_more_than_so_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "MOST", 2)
    ada = Caller()
    add(ada, name="a")
    add(ada, name="b")
    assert ada.post("schedules", {**BODY, "name": "c"}).status == 409
    add(Caller())


def test_it_is_paused_resumed_and_run_now() -> None:
    ada = Caller()
    path = f"schedules/{add(ada)['id']}"
    paused = ada.post(f"{path}/pause").json
    assert (paused["enabled"], paused["next_at"]) == (False, [])
    ran = ada.post(f"{path}/run-now").json
    assert ada.get(f"requests/{ran['last_request']}").json["payload"] == {"n": 1}
    assert len(ada.post(f"{path}/resume").json["next_at"]) == 3
    UserQueue.objects.update(waiting_limit=1)
    full = ada.post(f"{path}/run-now")
    assert (full.status, full.json["type"]) == (429, "/problems/queue-full")
    assert Request.objects.count() == 1


def test_resumed_by_one_who_read_it_before_a_change_it_is_due_by_the_change() -> None:
    ada = Caller()
    path = f"schedules/{add(ada, enabled=False)['id']}"
    before = Schedule.objects.get()
    ada.send("PATCH", path, {"cron": "0 12 * * *", "time_zone": "UTC"})
    assert before.resume()
    assert [at[11:] for at in ada.get(path).json["next_at"]] == ["12:00:00Z"] * 3


def test_made_changed_and_run_they_count_as_submissions() -> None:
    ada = Caller()
    path = f"schedules/{add(ada)['id']}"
    answers = [ada.send("PATCH", path, {"missed": "all"}), ada.post(f"{path}/run-now")]
    quota = settings.ENV.submissions_per_minute
    assert [one.headers["RateLimit"].split(";")[1] for one in answers] == [f"r={quota - 2}", f"r={quota - 3}"]


def test_a_kind_that_its_owner_may_not_ask_for_is_refused() -> None:
    ada = Caller()
    permissions.forget()
    with kept():
        handler("test.staff", permission=lambda user: user.is_staff)(print)
        answer = ada.post("schedules", {**BODY, "kind": "test.staff"})
    assert (answer.status, answer.errors) == (403, {"kind": "forbidden"})


def test_operators_list_add_pause_resume_run_and_remove(capsys: pytest.CaptureFixture[str]) -> None:
    user = new_user()
    added = run("schedules", "add", user.username, "nightly", "demo.echo", '{"n": 1}', "--cron", "30 6 * * *", "--json")
    (made,) = added.json
    assert (made["user"], made["when"]) == (user.username, "30 6 * * * UTC")
    assert [one["name"] for one in run("schedules", "list", "--user", user.id, "--json").json] == ["nightly"]
    for verb, said in (("pause", "paused"), ("resume", "resumed"), ("run-now", "submitted"), ("remove", "removed")):
        assert run("schedules", verb, made["schedule"]).status == 6, "it asks before"
        (told,) = run("schedules", verb, made["schedule"], "--yes", "--json").json
        assert told["result"] == said
    assert Request.objects.filter(queue__user=user).count() == 1
    assert not Schedule.objects.exists()
    assert OperatorAction.objects.count() == 5


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["add", "{user}", "n", "demo.echo", "{", "--every", "60"], 1, "is not JSON"),
        (["add", "{user}", "n", "demo.none", "1", "--every", "60"], 1, "kind: This kind is not known"),
        (["add", "{user}", "n", "demo.echo", "1", "--cron", "x"], 1, "cron: Write five fields"),
        (["add", "{user}", "n", "demo.echo", "1"], 1, "cron: Write cron, or every_seconds."),
        (["add", "nobody", "n", "demo.echo", "1", "--every", "60"], 3, "There is no user 'nobody': give an id"),
        (["pause", "x", "--yes"], 3, "There is no schedule 'x'."),
    ],
)
def test_a_command_line_that_does_not_fit_says_why(words: list[str], status: int, said: str) -> None:
    user = new_user()
    ran = run("schedules", *(word.format(user=user.id) if word == "{user}" else word for word in words))
    assert ran.status == status
    assert said in ran.said
    assert not Schedule.objects.exists()


def test_an_id_means_the_user_who_has_it_whoever_is_named_so() -> None:
    user = new_user()
    User.objects.create(username=str(user.id))
    for commanded in (
        run("schedules", "add", user.id, "nightly", "demo.echo", "1", "--every", 60, "--json"),
        run("schedules", "list", "--user", user.id, "--json"),
    ):
        assert [row["user"] for row in commanded.json] == [user.username]


def test_without_the_app_the_rest_works(tmp_path: Path) -> None:
    (tmp_path / "without.py").write_text(
        "from project.settings import *\nINSTALLED_APPS.remove('processing.schedules')\n"
    )
    told = (
        "import django, json; django.setup(); from django.urls import resolve, Resolver404\n"
        "import project.asgi, processing.dispatch.dispatcher, sys\n"
        "from processing.dispatch.dispatcher import Dispatcher; from queues.lifecycle.outbox import Shard\n"
        "resolve('/api/v1/requests')\n"
        "try: resolve('/api/v1/schedules'); there = True\n"
        "except Resolver404: there = False\n"
        "duties = [one.duty.name for one in Dispatcher(Shard(0, 1))._duties.threads]\n"
        "print(json.dumps([there, duties, 'processing.schedules.models' in sys.modules]))"
    )
    variables = {**os.environ, "DJANGO_SETTINGS_MODULE": "without", "PYTHONPATH": f"{tmp_path}:{ROOT}"}
    ran = subprocess.run([sys.executable, "-c", told], env=variables, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    there, duties, loaded = json.loads(ran.stdout)
    assert (there, "schedules" in duties, loaded) == (False, False, False)
    checked = subprocess.run(
        [sys.executable, "manage.py", "check"], env=variables, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stderr


def test_the_guides_body_and_command_work() -> None:
    guide = (ROOT / "docs" / "schedules.md").read_text()
    (body,) = re.findall(r"^```json\n(.+?)^```", guide, re.DOTALL | re.MULTILINE)
    assert Caller().post("schedules", json.loads(body)).status == 201
    User.objects.create_user("ada")
    commands = re.findall(r"^manage\.py (schedules add .+)$", guide, re.MULTILINE)
    assert commands
    for command in commands:
        ran = run(*shlex.split(command))
        assert ran.status == 0, ran.said


def test_schedules_are_part_of_their_users_export_and_go_with_them() -> None:
    ada = Caller()
    made = add(ada)
    add(Caller())
    (told,) = [record for record in records(ada.user) if record["record"] == "schedule"]
    assert (str(told["id"]), told["name"], told["payload"]) == (made["id"], "nightly", {"n": 1})
    User.objects.get(id=ada.user.id).delete()
    assert Schedule.objects.count() == 1
