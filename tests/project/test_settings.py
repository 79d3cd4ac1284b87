"""A start with settings that are wrong or unsafe is refused, with a sentence that says what to write instead."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

SECRET = "a-secret-of-this-test-" + "x" * 40


def python(
    *arguments: str, environment: Mapping[str, str] = os.environ, **settings: str
) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in environment.items() if name not in ("DEBUG", "SECRET_KEY")}
    program = [sys.executable, *arguments]
    return subprocess.run(program, env=kept | settings, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({}, "SECRET_KEY is not set. Set it to 50 random characters, or DEBUG=1 for development."),
        ({"SECRET_KEY": "short"}, "SECRET_KEY does not fit"),
        ({"SECRETS_DIR": "/nowhere"}, "SECRETS_DIR='/nowhere' is no folder. Mount the secrets there, or unset it."),
        ({"SECRET_KEY": SECRET, "TRUSTED_PROXIES": "all"}, "TRUSTED_PROXIES='all' does not fit"),
        ({"SECRET_KEY": SECRET, "BODY_LIMIT": "0"}, "BODY_LIMIT='0' does not fit"),
        ({"SECRET_KEY": SECRET, "HTTP_CALL_ALLOW": "a.internal,10.0.0.1/8"}, "instead of '10.0.0.1/8'"),
        ({"SECRET_KEY": SECRET, "HTTP_CALL_ALLOW": "10.0.0.256"}, "instead of '10.0.0.256'"),
        ({"SECRET_KEY": SECRET, "DATABASE_URL": "mysql://u:short@x/y"}, "DATABASE_URL does not fit: write postgres://"),
        ({"SECRET_KEY": SECRET, "DATABASE_URL": "postgres://u:short@x:y/z"}, "DATABASE_URL does not fit: write"),
        ({"SECRET_KEY": SECRET, "DATABASE_URL": "postgres://u:sho%zzrt@x/z"}, "DATABASE_URL does not fit: write"),
        ({"SECRET_KEY": SECRET, "DATABASE_URL": "postgres://u:short@x:0/z"}, "DATABASE_URL does not fit: write"),
        ({"SECRET_KEY": SECRET, "DATABASE_URL": "postgres://u:short@x/"}, "DATABASE_URL does not fit: write"),
        ({"SECRET_KEY": SECRET, "DATABASE_URL": "postgres://u@x/z?sslmod=require"}, "knows no parameter 'sslmod'."),
        ({"SECRET_KEY": SECRET, "DATABASE_URL": "postgres://u@x/z?sslmode=full"}, "sslmode is one of disable, allow,"),
        ({"SECRET_KEY": SECRET, "DATABASE_URL": "postgres://u@x/z?connect_timeout=2s"}, "a whole number of seconds."),
        ({"SECRET_KEY": SECRET, "KINDS": "report build"}, "write e.g. report.build,mail.* instead of 'report build'"),
        ({"SECRET_KEY": SECRET, "EMAIL_URL": "smtp://u:short@x/y"}, "write smtp+tls://user:password@host:587"),
        ({"SECRET_KEY": SECRET, "EMAIL_URL": "smtp://u:short@x"}, "PUBLIC_URL is not set. Links in mails need it"),
        ({"SECRET_KEY": SECRET, "PUBLIC_URL": "work.example.com"}, "PUBLIC_URL='work.example.com' does not fit"),
        ({"SECRET_KEY": SECRET, "REGISTRATION": "maybe"}, "REGISTRATION='maybe' does not fit"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_is_wrong_stops_the_start_with_a_sentence(settings: dict[str, str], sentence: str) -> None:
    started = python("-c", "import project.settings", **settings)
    assert started.returncode != 0
    assert sentence in started.stderr
    assert "short" not in started.stderr.splitlines()[-1]
    assert "sho%zzrt" not in started.stderr.splitlines()[-1]


def test_the_query_of_the_database_s_address_is_honoured() -> None:
    from project.settings import database

    query = "sslmode=verify-full&sslrootcert=/ca.pem&connect_timeout=3&application_name=me&options=-c%20work_mem%3D8MB"
    found = database(f"postgres://me:p%40ss@one:5432,two:5433/orders?{query}&target_session_attrs=read-write")
    assert [found[name] for name in ("NAME", "USER", "PASSWORD")] == ["orders", "me", "p@ss"]
    assert (found["HOST"], found["PORT"]) == ("one,two", "5432,5433")
    assert found["OPTIONS"] == {
        **database("postgres:///orders")["OPTIONS"],
        "sslmode": "verify-full",
        "sslrootcert": "/ca.pem",
        "connect_timeout": "3",
        "application_name": "me",
        "target_session_attrs": "read-write",
        "options": "-c work_mem=8MB",
    }
    assert "options" not in database("postgres:///orders")["OPTIONS"]  # a pooler in between refuses them


def test_secrets_are_read_from_files_and_the_environment_wins(tmp_path: Path) -> None:
    (tmp_path / "secret_key").write_text(f"{SECRET}\n")
    (tmp_path / "database_url").write_text("postgres://ordered_work:p%40ss@postgres:5432/from_a_file\n")
    show = "from project.settings import DATABASES, SECRET_KEY; print(SECRET_KEY, DATABASES['default']['NAME'])"
    nothing_else = {name: value for name, value in os.environ.items() if name != "DATABASE_URL"}
    for named, expected in [({}, "from_a_file"), ({"DATABASE_URL": "postgres://postgres:5432/named"}, "named")]:
        said = python("-c", show, SECRETS_DIR=str(tmp_path), environment=nothing_else, **named)
        assert (said.stdout.split(), said.stderr) == ([SECRET, expected], "")


def test_a_deployment_has_nothing_to_be_warned_about() -> None:
    checked = python("manage.py", "check", "--deploy", "--fail-level", "WARNING", SECRET_KEY=SECRET)
    assert (checked.returncode, checked.stderr) == (0, "")


@pytest.mark.parametrize("proxies", ["0", "1"])
def test_https_is_believed_of_trusted_proxies_only(proxies: str) -> None:
    said = python(
        "-c",
        "import project.settings; print(hasattr(project.settings, 'SECURE_PROXY_SSL_HEADER'))",
        SECRET_KEY=SECRET,
        TRUSTED_PROXIES=proxies,
    )
    assert said.stdout.strip() == str(proxies == "1")


def test_token_keys_that_do_not_fit_stop_every_command() -> None:
    started = python("manage.py", "check", SECRET_KEY=SECRET, TOKEN_KEYS="nonsense")
    assert started.returncode != 0
    assert "TOKEN_KEYS does not fit: write PEM" in started.stderr
    assert "nonsense" not in started.stderr


@pytest.mark.parametrize(
    ("settings", "on", "allowed"),
    [
        ({}, [], []),
        ({"DEBUG": "1"}, ["demo", "http.call"], []),
        ({"OPTIONAL_KINDS": "demo"}, ["demo"], []),
        ({"KINDS": "*"}, [], ["*"]),
        ({"KINDS": "demo.*, http.call"}, ["demo", "http.call"], ["demo.*", "http.call"]),
        ({"KINDS": "report.*", "OPTIONAL_KINDS": "http.call"}, ["http.call"], ["report.*", "http.call*"]),
        ({"KINDS": "demo.echo", "DEBUG": "1"}, ["demo", "http.call"], ["demo.echo"]),
    ],
    ids=str,
)
def test_the_kinds_of_the_projects_own_are_off_unless_named(
    settings: dict[str, str], on: list[str], allowed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from project.settings import allowed_kinds, optional_kinds, read_environment

    for name in ("KINDS", "OPTIONAL_KINDS", "DEBUG"):
        monkeypatch.delenv(name, raising=False)
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    env = read_environment()
    assert (optional_kinds(env), allowed_kinds(env)) == (on, allowed)
