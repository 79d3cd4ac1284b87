"""Every process refuses wrong settings and wrong handlers at its start, in one sentence and without a traceback."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.place import free_port

BARE = """\
from processing.handlers import handler

@handler
def build(request, payload):
    return 1
"""
IMPORTS = """\
from processing.handlers import handler
import reports_of_nobody
"""
FINE = """\
from processing.handlers import handler

@handler("yours.build")
def build(request, payload):
    return 1
"""
LONG = """\
from processing.handlers import handler

@handler("yours.usual", atomic=True)
def usual(request, payload):
    return 1

@handler("yours.build", atomic=True, time_limit=61)
def build(request, payload):
    return 1
"""
SENTENCE = '{folder}/yours/handlers.py:3: Write @handler("name.of.the.kind") instead of @handler.\n'
DJANGO = [sys.executable, "manage.py"]


def app(folder: Path, handlers: str | None, name: str = "yours") -> Path:
    """An app of somebody's own."""
    (folder / name).mkdir()
    (folder / name / "__init__.py").touch()
    if handlers is not None:
        (folder / name / "handlers.py").write_text(handlers)
    return folder


def start(folder: Path, *command: str, **settings: str) -> subprocess.CompletedProcess[str]:
    variables = {**os.environ, "PYTHONPATH": str(folder), "EXTRA_APPS": "yours", **settings}
    return subprocess.run(command, env=variables, capture_output=True, text=True, timeout=120, check=False)


def test_a_transaction_that_may_be_long_is_warned_of(tmp_path: Path) -> None:
    checked = start(app(tmp_path, LONG), *DJANGO, "check")
    assert checked.returncode == 0
    warned = [line for line in checked.stderr.splitlines() if "processing.W001" in line]
    assert len(warned) == 1
    assert "'yours.build' version 1 is atomic and has time_limit=61" in warned[0]


@pytest.mark.parametrize("command", [["check"], ["dispatch"], ["work"], ["migrate"]], ids=lambda words: words[0])
def test_every_command_refuses_a_wrong_handler_with_its_place(tmp_path: Path, command: list[str]) -> None:
    refused = start(app(tmp_path, BARE), *DJANGO, *command)
    assert (refused.returncode, refused.stderr, refused.stdout) == (1, SENTENCE.format(folder=tmp_path), "")


def test_the_api_refuses_a_wrong_handler_with_its_place(tmp_path: Path) -> None:
    granian = [sys.executable, "-m", "granian", "--port", str(free_port()), "--interface", "asgi"]
    refused = start(app(tmp_path, BARE), *granian, "project.asgi:application")
    assert refused.returncode != 0
    assert SENTENCE.format(folder=tmp_path) in refused.stderr
    assert "Traceback" not in refused.stderr + refused.stdout


@pytest.mark.parametrize(
    ("handlers", "named", "sentence"),
    [
        (IMPORTS, "yours", "{folder}/yours/handlers.py:2: ModuleNotFoundError: No module named 'reports_of_nobody'\n"),
        (
            "from processing.handlers import Handler",
            "yours",
            "{folder}/yours/handlers.py:1: ImportError: cannot import",
        ),
        ("x = 1\ndef f(:", "yours", "{folder}/yours/handlers.py:2: File"),
        (
            FINE,
            "yours.handlers",
            "EXTRA_APPS='yours.handlers': 'yours.handlers' is a module, not an app. Write 'yours'.\n",
        ),
        (
            FINE,
            "your",
            "EXTRA_APPS='your': there is no package 'your'. Write the name of the app's folder, and put the folder "
            "that it lies in on PYTHONPATH.\n",
        ),
        (FINE, "yours,yours", "EXTRA_APPS='yours,yours' names an app twice.\n"),
        (None, "yours", "EXTRA_APPS='yours': the app 'yours' declares no handler. Write them in its handlers.py.\n"),
        ("", "yours", "EXTRA_APPS='yours': the app 'yours' declares no handler. Write them in its handlers.py.\n"),
    ],
    ids=[
        "ImportError",
        "a wrong name",
        "SyntaxError",
        "a module",
        "no package",
        "twice",
        "no handlers.py",
        "no handler",
    ],
)
def test_an_app_that_does_not_fit_is_refused(tmp_path: Path, handlers: str | None, named: str, sentence: str) -> None:
    refused = start(app(tmp_path, handlers), *DJANGO, "check", EXTRA_APPS=named)
    assert refused.returncode == 1
    assert refused.stderr.startswith(sentence.format(folder=tmp_path))
    assert "Traceback" not in refused.stderr


def test_what_an_app_imports_by_way_of_its_package_is_told_with_its_place(tmp_path: Path) -> None:
    app(tmp_path, FINE)
    (tmp_path / "yours" / "__init__.py").write_text("import reports_of_nobody\n")
    refused = start(tmp_path, *DJANGO, "check")
    told = f"{tmp_path}/yours/__init__.py:1: ModuleNotFoundError: No module named 'reports_of_nobody'\n"
    assert (refused.returncode, refused.stderr) == (1, told)


@pytest.mark.parametrize("named", ["yours", "yours.apps.Yours"])
def test_an_app_that_fits_is_taken(tmp_path: Path, named: str) -> None:
    app(tmp_path, FINE)
    apps = "from django.apps import AppConfig\nclass Yours(AppConfig):\n    name = 'yours'\n"
    (tmp_path / "yours" / "apps.py").write_text(apps)
    taken = start(tmp_path, *DJANGO, "check", EXTRA_APPS=named)
    assert (taken.returncode, taken.stderr) == (0, "")


def test_the_readmes_app_is_taken_as_it_stands(tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(# yourapp/handlers\.py.*?)```", Path("README.md").read_text(), re.DOTALL)
    app(tmp_path, code, "yourapp")
    shown = "from queues import kinds; print(kinds.find('report.build').max_attempts)"
    taken = start(tmp_path, *DJANGO, "shell", "-v0", "-c", shown, EXTRA_APPS="yourapp")
    assert (taken.returncode, taken.stdout, taken.stderr) == (0, "5\n", "")


def test_a_setting_that_does_not_fit_is_one_sentence(tmp_path: Path) -> None:
    app(tmp_path, FINE)
    told = (
        "LEASE_SECONDS='soon' does not fit: Input should be a valid number, unable to parse string as a number. "
        "What it is: How long a silent worker keeps a queue.\n"
    )
    refused = start(tmp_path, *DJANGO, "work", LEASE_SECONDS="soon")
    assert (refused.returncode, refused.stderr) == (1, told)
    granian = [sys.executable, "-m", "granian", "--port", str(free_port()), "--interface", "asgi"]
    refused = start(tmp_path, *granian, "project.asgi:application", LEASE_SECONDS="soon")
    assert refused.returncode != 0
    assert told in refused.stderr
    assert "Traceback" not in refused.stderr


def test_run_says_the_sentence_too(tmp_path: Path) -> None:
    app(tmp_path, BARE)
    first_step = "from scripts.run.application import migrate; migrate({})"
    refused = start(tmp_path, sys.executable, "-c", first_step, PYTHONPATH=f"{tmp_path}:{Path.cwd()}")
    assert (refused.returncode, refused.stderr) == (1, SENTENCE.format(folder=tmp_path))


def test_a_pattern_of_kinds_that_fits_none_is_refused_with_those_that_there_are(tmp_path: Path) -> None:
    refused = start(app(tmp_path, FINE), *DJANGO, "check", KINDS="yours.*,your.build", DEBUG="1")
    assert refused.returncode == 1
    assert refused.stderr.startswith("KINDS='yours.*,your.build': no kind fits 'your.build'. There is demo.echo, ")
    assert start(tmp_path, *DJANGO, "check", KINDS="yours.*", DEBUG="1").returncode == 0


MODELS = """\
from django.db import models

class Report(models.Model):
    class Meta:
        permissions = [("send_report", "Can send reports")]
"""


@pytest.mark.parametrize(
    ("permission", "told"),
    [
        ("staff", "write a permission such as 'reports.add_report', or a function that takes the user."),
        ("yours.add_reports", "no model of an installed app has it. Write one that there is, or a function that takes"),
        ("yours.add_report", ""),
        ("yours.send_report", ""),
    ],
)
def test_a_permission_that_nobody_can_have_is_refused(tmp_path: Path, permission: str, told: str) -> None:
    handlers = FINE.replace('"yours.build"', f'"yours.build", permission="{permission}"')
    (app(tmp_path, handlers) / "yours" / "models.py").write_text(MODELS)
    ran = start(tmp_path, *DJANGO, "check")
    place = f"{tmp_path}/yours/handlers.py:3: 'yours.build' has permission={permission!r}: "
    assert ran.stderr.startswith(place + told if told else "")
    assert ran.returncode == (1 if told else 0), ran.stderr


STOPPED_BEFORE_IT_SERVES = """\
import asyncio, signal, uvloop
from project import asgi

async def start_up():
    loop.add_signal_handler(signal.SIGTERM, told.append, "told")  # as the server does
    asgi.end_what_waits_on(signal.SIGTERM, loop)

async def serve():
    while not told:
        await asyncio.sleep(0.01)

for make in asyncio.new_event_loop, uvloop.new_event_loop:
    told, loop = [], make()
    loop.run_until_complete(start_up())
    signal.raise_signal(signal.SIGTERM)
    loop.run_until_complete(asyncio.wait_for(serve(), 10))
    print(told[0])
"""


def test_a_stop_between_starting_up_and_serving_is_not_lost(tmp_path: Path) -> None:
    stopped = start(tmp_path, sys.executable, "-c", STOPPED_BEFORE_IT_SERVES, EXTRA_APPS="")
    assert (stopped.stdout.split(), stopped.returncode) == (["told"] * 2, 0), stopped.stderr
