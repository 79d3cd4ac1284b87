"""The pages beside the live one, for everybody: what mails lead to, what a problem means, the API's documentation."""

import pytest

from tests.page.eyes import PHONE, WIDE, Page

pytestmark = pytest.mark.django_db  # for its tables

PLAIN = [
    "/problems/validation", "/nowhere", "/account/verify-email", "/account/verify-email?token=x",
    "/account/password-reset", "/account/password-reset/confirm?token=x", "/admin/login/",
]  # fmt: skip
# What Swagger UI and ReDoc write by themselves: a button for the path within the one that opens it; headings by size.
TOLERATED = {"/api/docs": ["nested-interactive", "region"], "/api/redoc": ["heading-order"]}
SHOWN = {"/api/docs": ".opblock .opblock-summary-method", "/api/redoc": "h5"}


def test_axe_finds_nothing_on_plain_pages_in_either_theme(page: Page) -> None:
    wrong = {}
    for path in PLAIN:
        for size, dark in ((WIDE, False), (PHONE, True)):
            page.emulate(size, dark=dark)
            page.open(path)
            wrong[f"{path} {size}"] = page.found_by_axe()
            assert page.js("return document.documentElement.scrollWidth <= innerWidth"), f"{path} is too wide"
    assert {path: found for path, found in wrong.items() if found} == {}


def test_axe_finds_nothing_on_what_the_forms_answer(page: Page) -> None:
    wrong = {}
    for path, field, said in (
        ("/account/password-reset", "email", "a mail with a link is on its way"),
        ("/account/password-reset/confirm?token=x", "new_password", "This link is not valid"),
    ):
        page.open(path).type(f"[name={field}]", "somebody@example.com")
        page.click("main button")
        page.sees(said)
        wrong[path] = page.found_by_axe()
    page.open("/admin/login/").type("[name=username]", "nobody")
    page.type("[name=password]", "nothing")
    page.click("[type=submit]")
    page.sees("Please enter the correct")
    wrong["/admin/login/"] = page.found_by_axe()
    assert {path: found for path, found in wrong.items() if found} == {}


@pytest.mark.parametrize("path", ["/api/docs", "/api/redoc"])
def test_axe_finds_nothing_on_the_documentation_of_the_api(page: Page, path: str) -> None:
    page.browser.set_script_timeout(120)
    for size in (WIDE, PHONE):
        page.emulate(size)
        page.open(path).until(f"document.querySelector({SHOWN[path]!r})", 60)
        assert page.found_by_axe(rules_off=TOLERATED[path]) == [], size
