"""Around every request: its id, its policy headers, and no middleware that its path does not need."""

import gzip
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
import structlog
from django.conf import settings as django_settings
from django.core.management import call_command
from django.core.management.base import SystemCheckError
from django.http import HttpResponse
from django.test import Client
from django.utils.module_loading import import_string
from drf_spectacular.generators import SchemaGenerator

from project.telemetry import health
from tests.accounts.people import Api


@pytest.mark.parametrize("sent", ["a", "Trace-1.2_3", "x" * 64])
def test_the_caller_s_request_id_is_kept(sent: str) -> None:
    assert Api().get("/health/live", HTTP_X_REQUEST_ID=sent)["X-Request-ID"] == sent


@pytest.mark.parametrize("sent", ["", "x" * 65, "a b", "a\n", "é", "<b>", "a;b", "\x00"])
def test_any_other_is_replaced_by_a_sortable_one(sent: str) -> None:
    assert UUID(Api().get("/health/live", HTTP_X_REQUEST_ID=sent)["X-Request-ID"]).version == 7


def test_every_request_without_an_id_gets_another() -> None:
    assert len({Api().get("/health/live")["X-Request-ID"] for _ in range(5)}) == 5


def test_the_id_is_in_every_line_logged_meanwhile_and_in_none_after(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict[str, Any]] = []

    def view(request: Any) -> HttpResponse:
        seen.append(structlog.contextvars.get_contextvars() | {"on_request": request.request_id})
        structlog.contextvars.bind_contextvars(user_id="left behind")
        return HttpResponse()

    monkeypatch.setattr("project.urls.urlpatterns", [])
    from django.test import RequestFactory

    from project.web.middleware import Edge

    for request_id in ("one", "two"):
        Edge(view)(RequestFactory().get("/", HTTP_X_REQUEST_ID=request_id, HTTP_HOST="localhost"))
    assert seen == [{"request_id": one, "on_request": one} for one in ("one", "two")]


@pytest.mark.parametrize("path", ["/api/v1/auth/me", "/nowhere", "/health/live", "/api/schema"])
def test_the_api_uses_no_cookies_and_no_sessions(path: str, db: None) -> None:
    client = Client(raise_request_exception=False)
    client.cookies["sessionid"] = "x" * 32
    answer = client.get(path)
    assert not answer.cookies
    assert "Cookie" not in answer.get("Vary", "")


def test_the_admin_has_all_the_middleware_it_needs() -> None:
    needed = {
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.contrib.messages.middleware.MessageMiddleware",
        "django.middleware.clickjacking.XFrameOptionsMiddleware",
    }
    assert needed <= set(django_settings.MIDDLEWARE_UNDER["/admin/"])
    assert all(import_string(name) for names in django_settings.MIDDLEWARE_UNDER.values() for name in names)


def test_answers_of_the_api_may_not_be_framed_sniffed_or_kept(db: None) -> None:
    answer = Api().get("auth/me")
    assert answer["Content-Security-Policy"] == "default-src 'none'; frame-ancestors 'none'"
    assert answer["X-Content-Type-Options"] == "nosniff"
    assert answer["Cache-Control"] == "no-store"
    assert int(answer["Content-Length"]) == len(answer.content)


@pytest.mark.parametrize("path", ["/health/live", "/health/ready", "/metrics"])
def test_probes_and_prometheus_may_ask_by_address(path: str, db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("postgresql", "rabbitmq", "redis", "migrations", "dispatcher")
    monkeypatch.setattr(health, "checks", lambda: dict.fromkeys(names, "ok"))
    assert Api().get(path, HTTP_HOST="10.1.2.3:8000").status_code == 200


@pytest.mark.parametrize(
    "path", ["/", "/metrics/", "/metrics%0A", "/metricsx", "/x/metrics", "/health", "/api/v1/auth/me", "/admin/login/"]
)
def test_nothing_else_is_answered_under_a_host_name_that_is_not_served(path: str) -> None:
    refused = Api().get(path, HTTP_HOST="10.1.2.3:8000")
    assert (refused.status_code, refused.json()["type"]) == (400, "/problems/bad-host")


def test_outside_development_http_is_sent_to_https_but_for_probes(settings: Any) -> None:
    settings.SECURE_SSL_REDIRECT = True
    settings.SECURE_REDIRECT_EXEMPT = [r"^health/", r"^metrics$"]
    client = Client()
    assert client.get("/api/v1/auth/me").status_code == 301
    assert client.get("/health/live").status_code == 200


ORIGIN = "https://app.example.com"
Browser = Callable[..., Any]


@pytest.fixture
def browser_of(settings: Any) -> Browser:
    """A browser that asks from an origin, before a project that lets ORIGIN in."""
    settings.CORS_ALLOWED_ORIGINS = [ORIGIN]

    def ask(origin: str, method: str = "GET", path: str = "/api/v1/auth/me", **extra: Any) -> Any:
        return Client().generic(method, path, HTTP_ORIGIN=origin, **extra)

    return ask


def test_an_origin_that_is_named_may_call(browser_of: Browser, db: None) -> None:
    asked = browser_of(ORIGIN, "OPTIONS", HTTP_ACCESS_CONTROL_REQUEST_METHOD="POST")
    assert asked.status_code == 200
    assert "Idempotency-Key" in asked["Access-Control-Allow-Headers"]
    assert "traceparent" in asked["Access-Control-Allow-Headers"], "a page's trace goes on here"
    answer = browser_of(ORIGIN)
    assert answer.status_code == 401
    for one in (asked, answer):
        assert one["Access-Control-Allow-Origin"] == ORIGIN
        assert "Access-Control-Allow-Credentials" not in one
        assert "origin" in one["Vary"].lower()


def test_it_may_use_every_method_that_the_api_has(browser_of: Browser, db: None) -> None:
    paths = SchemaGenerator().get_schema(request=None, public=True)["paths"]
    used = {verb.upper() for path in paths.values() for verb in path}
    assert {"GET", "PATCH"} <= used
    asked = browser_of(ORIGIN, "OPTIONS", HTTP_ACCESS_CONTROL_REQUEST_METHOD="PATCH")
    assert used <= set(asked["Access-Control-Allow-Methods"].split(", "))


@pytest.mark.parametrize(
    ("origin", "path"),
    [
        ("https://evil.example", "/api/v1/auth/me"),
        ("https://app.example.com.evil.example", "/api/v1/auth/me"),
        ("http://app.example.com", "/api/v1/auth/me"),
        ("null", "/api/v1/auth/me"),
        (ORIGIN, "/admin/login/"),
    ],
)
def test_no_other_may(browser_of: Browser, db: None, origin: str, path: str) -> None:
    for method in ("GET", "OPTIONS"):
        answer = browser_of(origin, method, path, HTTP_ACCESS_CONTROL_REQUEST_METHOD="GET")
        assert "Access-Control-Allow-Origin" not in answer


def test_without_origins_nobody_may(settings: Any, db: None) -> None:
    settings.CORS_ALLOWED_ORIGINS = []
    answer = Client().get("/api/v1/auth/me", HTTP_ORIGIN=ORIGIN)
    assert not [name for name in answer.headers if name.startswith("Access-Control")]


def test_what_scripts_may_read_is_what_the_api_sends() -> None:
    assert not {"Set-Cookie", "Authorization"} & set(django_settings.CORS_EXPOSE_HEADERS)


def test_an_origin_that_is_none_is_named_before_anything_starts(settings: Any) -> None:
    settings.CORS_ALLOWED_ORIGINS = ["app.example.com"]
    with pytest.raises(SystemCheckError, match=r"app\.example\.com"):
        call_command("check")


def test_static_files_are_compressed_whole_and_asked_for_once() -> None:
    path, read = "/static/page/page.css", {"accept-encoding": "gzip"}
    plain = b"".join(Client().get(path).streaming_content)  # type: ignore[attr-defined]
    answer = Client().get(path, headers=read)
    sent = b"".join(answer.streaming_content)  # type: ignore[attr-defined]
    assert (answer["Content-Encoding"], answer["Vary"]) == ("gzip", "Accept-Encoding")
    assert len(sent) < len(plain) / 3
    assert gzip.decompress(sent) == plain
    again = Client().get(path, headers=read | {"if-none-match": answer["ETag"]})
    part = Client().get(path, headers=read | {"range": "bytes=0-9"})
    head = Client().head(path, headers=read)
    assert [one.status_code for one in (again, part, head)] == [304, 206, 200]
    assert not any(one.has_header("Content-Encoding") for one in (again, part, head))
    assert b"".join(part.streaming_content) == plain[:10]  # type: ignore[attr-defined]
