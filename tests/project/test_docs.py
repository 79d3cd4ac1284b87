"""The documentation is complete, served from here alone, and runs nothing inline."""

import os
import re
from typing import Any

import pytest
from django.core.management import call_command

from tests.accounts.people import Api

AUTH = {
    "/api/v1/auth/register": {"post": {"201", "400", "403", "411", "413", "415", "429", "500", "503"}},
    "/api/v1/auth/token": {"post": {"200", "400", "401", "403", "411", "413", "415", "429", "500", "503"}},
    "/api/v1/auth/token/refresh": {"post": {"200", "400", "401", "403", "411", "413", "415", "500", "503"}},
    "/api/v1/auth/logout": {"post": {"204", "400", "401", "403", "411", "413", "415", "500", "503"}},
    "/api/v1/auth/logout-all": {"post": {"204", "400", "401", "500", "503"}},
    "/api/v1/auth/password": {"post": {"204", "400", "401", "411", "413", "415", "429", "500", "503"}},
    "/api/v1/auth/verify-email": {"post": {"202", "204", "400", "411", "413", "415", "429", "500", "503"}},
    "/api/v1/auth/password-reset": {"post": {"202", "400", "411", "413", "415", "429", "500", "503"}},
    "/api/v1/auth/password-reset/confirm": {"post": {"204", "400", "411", "413", "415", "429", "500", "503"}},
    "/api/v1/auth/me": {
        "get": {"200", "400", "401", "500", "503"},
        "delete": {"202", "400", "401", "411", "413", "415", "429", "500", "503"},
    },
    "/api/v1/auth/me/export": {"get": {"200", "400", "401", "429", "500", "503"}},
    "/api/v1/auth/me/email": {"get": {"200", "400", "401", "500", "503"}},
    "/api/v1/auth/sessions": {"get": {"200", "400", "401", "500", "503"}},
    "/api/v1/auth/sessions/{session_id}": {"delete": {"204", "400", "401", "404", "500", "503"}},
}


@pytest.fixture
def document() -> dict[str, Any]:
    answer = Api().get("/api/schema")
    assert answer.status_code == 200
    document: dict[str, Any] = answer.json()
    return document


def test_every_route_of_accounts_documents_every_status(document: dict[str, Any]) -> None:
    documented = {
        path: {method: set(operation["responses"]) for method, operation in operations.items()}
        for path, operations in document["paths"].items()
        if path.startswith("/api/v1/auth/")
    }
    assert documented == AUTH


def test_every_error_is_documented_as_a_problem(document: dict[str, Any]) -> None:
    for operations in document["paths"].values():
        for operation in operations.values():
            for status, response in operation["responses"].items():
                if status >= "400":
                    assert list(response["content"]) == ["application/problem+json"], operation["operationId"]


def test_bodies_are_documented_as_strictly_as_they_are_read(document: dict[str, Any]) -> None:
    schema = document["components"]["schemas"]["RegisterBody"]
    assert schema["additionalProperties"] is False
    assert schema["required"] == ["password", "username"]
    assert schema["properties"]["password"] == {"type": "string", "minLength": 1, "maxLength": 1024}
    assert "description" not in schema


def test_the_document_is_made_without_a_warning(capfd: pytest.CaptureFixture[str]) -> None:
    call_command("spectacular", validate=True, fail_on_warn=True, file=os.devnull)
    assert "Warning" not in capfd.readouterr().err


def test_public_routes_ask_for_no_token_and_others_do(document: dict[str, Any]) -> None:
    assert document["components"]["securitySchemes"]["Bearer"]["scheme"] == "bearer"
    for path, operations in document["paths"].items():
        for operation in operations.values():
            assert (operation.get("security") == [{"Bearer": []}]) == ("401" in operation["responses"]) or (
                path in ("/api/v1/auth/token", "/api/v1/auth/token/refresh", "/api/v1/auth/logout")
            )


def test_the_document_is_fetched_again_only_when_it_changed() -> None:
    first = Api().get("/api/schema")
    assert Api().get("/api/schema", HTTP_IF_NONE_MATCH=first["ETag"]).status_code == 304


@pytest.mark.parametrize("path", ["/api/docs", "/api/redoc"])
def test_the_pages_load_local_files_only_and_run_nothing_inline(path: str) -> None:
    answer = Api().get(path)
    page = answer.content.decode()
    policy = answer["Content-Security-Policy"]
    assert "default-src 'none'; script-src 'self';" in policy
    assert "unsafe-eval" not in policy
    assert not re.search(r"<script>|<style|\son\w+=|https?://", page)
    files = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert len(files) >= 3
    for file in files:
        assert Api().get(file).status_code == 200, file


@pytest.mark.parametrize(
    ("path", "shows", "last"),
    [("/api/docs", "/api/v1/auth/register", ".opblock"), ("/api/redoc", "register", "[alt='redocly logo']")],
)
def test_a_browser_shows_them_and_asks_no_other_host(
    live_server: Any, browser: Any, path: str, shows: str, last: str
) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    browser.get_log("browser")  # what earlier tests left there
    browser.get(f"{live_server.url}{path}")
    waiting = WebDriverWait(browser, 60)
    waiting.until(lambda page: shows in page.find_element("tag name", "body").text)
    waiting.until(lambda page: page.find_elements("css selector", last))
    addresses = browser.execute_script("return performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert len(addresses) >= 3
    assert [address for address in addresses if not address.startswith((f"{live_server.url}/", "data:", "blob:"))] == []
    assert [entry["message"] for entry in browser.get_log("browser")] == []
