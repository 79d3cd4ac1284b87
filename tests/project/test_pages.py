"""No dead ends: the root, the API's root, the icon, the admin's way back and every problem's type lead somewhere."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.contrib import admin

from project.rest.pages import MEANINGS, PLACES
from project.rest.problems import Problem
from scripts.place import ROOT
from tests.client import Client

pytestmark = pytest.mark.django_db


def kinds_of(kind: type[Problem]) -> Iterator[type[Problem]]:
    yield kind
    for below in kind.__subclasses__():
        yield from kinds_of(below)


def names_that_are_raised() -> set[str]:
    """Of every class of problems, and of every call of one that gives it another name."""
    classes = {kind.__name__: kind for kind in kinds_of(Problem)}
    names = {kind.name for kind in classes.values()}
    for package in ("project", "accounts", "queues", "processing"):
        for path in Path(ROOT, package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in {*classes, "__init__"}:
                    names |= {
                        k.value.value for k in node.keywords if k.arg == "name" and isinstance(k.value, ast.Constant)
                    }
    return {name for name in names if isinstance(name, str)}


def test_every_problem_that_can_be_raised_is_explained() -> None:
    assert len(names_that_are_raised()) > 15
    assert names_that_are_raised() == set(MEANINGS)


def test_the_problems_that_nginx_answers_by_itself_are_explained() -> None:
    template = Path(ROOT, "docker/nginx/templates/service.conf.template").read_text()
    block = re.search(r"map \$status \$problem \{(.+?)\}", template, re.DOTALL)
    assert block
    assert "body-too-large" in block[1]
    assert set(re.findall(r"(?:\d+|default) ([a-z-]+);", block[1])) <= set(MEANINGS)


@pytest.mark.parametrize("name", sorted(MEANINGS))
def test_the_type_of_a_problem_leads_to_what_it_means_and_what_to_do(name: str) -> None:
    page = Client().get(f"/problems/{name}")
    assert (page.status_code, page["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert name in page.content.decode()
    assert "What to do" in page.content.decode()
    assert "default-src 'none'" in page["Content-Security-Policy"]


def test_a_problem_that_there_is_not_is_a_problem() -> None:
    answer = Client().get("/problems/made-up")
    assert (answer.status_code, answer["Content-Type"]) == (404, "application/problem+json")
    assert Client().get(answer.json()["type"]).status_code == 200


@pytest.mark.parametrize("accept", ["*/*", "text/html", "application/json"])
def test_the_root_says_what_this_is_and_every_link_of_it_leads_somewhere(accept: str) -> None:
    page = Client().get("/", headers={"accept": accept})
    assert (page.status_code, page["Content-Type"]) == (200, "text/html; charset=utf-8")
    links = set(re.findall(r'(?:href|src)="([^"]+)"', page.content.decode()))
    assert {"/api/docs", "/admin/", "/api/v1/", "/favicon.svg"} <= links
    for link in links:
        assert Client().get(link).status_code in (200, 302), link


def test_the_apis_root_names_where_everything_is() -> None:
    answer = Client().get("/api/v1/")
    assert (answer.status_code, answer.json()) == (200, PLACES)
    assert {"requests", "queue", "kinds", "schema", "docs"} <= set(PLACES)
    for place in PLACES.values():
        assert Client().get(place).status_code in (200, 401, 405), place


@pytest.mark.parametrize("path", ["/favicon.ico", "/favicon.svg"])
def test_there_is_an_icon(path: str) -> None:
    answer = Client().get(path)
    assert (answer.status_code, answer["Content-Type"]) == (200, "image/svg+xml")


def test_the_admins_way_back_to_the_site_leads_somewhere() -> None:
    assert Client().get(admin.site.site_url).status_code == 200
