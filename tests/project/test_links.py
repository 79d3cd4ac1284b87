"""A crawler: every link of ours that a page, the documentation, an answer or a document shows leads somewhere."""

import re
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import pytest

from accounts.models import Session
from scripts.place import ROOT
from tests.accounts.people import make_user
from tests.client import Client

DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BEGIN = ["/", "/api/v1/", "/api/docs", "/api/redoc", "/api/schema", "/admin/", "/account/password-reset"]
HERE = ("localhost", "127.0.0.1", "testserver", "")
ENDLESS = "/api/v1/queue/events"


def links_in_html(page: str) -> Iterator[str]:
    yield from re.findall(r'(?:href|src|data-schema)="([^"]*)"', page)


def strings_in(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for inner in value.values():
            yield from strings_in(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from strings_in(inner)
    elif isinstance(value, str):
        yield value


def links_in_json(value: Any) -> Iterator[str]:
    """Strings that are a path, and what Markdown in them links to."""
    for text in strings_in(value):
        if re.fullmatch(r"/[\w/.-]+", text):
            yield text
        yield from re.findall(r"\]\((/[^)]*)\)", text)


class Crawler:
    """Goes where the links of pages lead, as an operator who also has an API token; not beyond the admin's front."""

    def __init__(self) -> None:
        user = make_user(is_staff=True, is_superuser=True)
        self.client = Client()
        self.client.force_login(user)
        self.token = f"Bearer {Session.open(user).access}"
        self.methods: dict[str, list[str]] = {}
        self.seen: dict[str, int] = {}
        self.wrong: list[str] = []

    def crawl(self, paths: list[str]) -> None:
        waiting = [(path, "the start") for path in paths]
        while waiting:
            path, source = waiting.pop()
            if path not in self.seen:
                waiting += [(link, path) for link in self.visit(path, source)]

    def visit(self, path: str, source: str) -> list[str]:
        """Ask for it as the documentation says; what it links to."""
        if path in self.methods and "get" not in self.methods[path]:
            self.seen[path] = 0  # a route that only takes what is sent to it
            return []
        answer = self.client.get(path, headers={"Authorization": self.token})
        self.seen[path] = answer.status_code
        if path.startswith("/health/"):
            return []  # it is there, whatever it says of others
        if answer.status_code >= 400:
            self.wrong.append(f"{path} in {source} answers {answer.status_code}")
            return []
        if answer.streaming:
            if path == ENDLESS:
                answer.close()
            return []
        if answer.status_code in (301, 302):
            return list(self.ours([answer["Location"]], path))
        kind = answer["Content-Type"]
        if kind.startswith("text/html"):
            beyond = path.startswith("/admin/") and path != "/admin/"
            return [] if beyond else list(self.ours(links_in_html(answer.content.decode()), path))
        if kind.startswith("application/json"):
            found = answer.json()
            for route, operations in found.get("paths", {}).items() if isinstance(found, dict) else ():
                self.methods[route] = list(operations)
            return list(self.ours(links_in_json(found), path))
        return []

    def ours(self, links: Any, base: str) -> Iterator[str]:
        for link in links:
            parts = urlsplit(urljoin(f"http://testserver{base}", unescape(link)))
            if parts.scheme in ("http", "https") and parts.hostname in HERE:
                yield parts.path + (f"?{parts.query}" if parts.query else "")


@pytest.mark.django_db(transaction=True)
def test_every_link_that_is_shown_leads_somewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("queues.live.sse.LINGER_SECONDS", 0.0)
    crawler = Crawler()
    crawler.crawl(["/api/schema"])  # first, so that it knows which routes only take POST
    crawler.crawl(BEGIN)
    assert crawler.wrong == []
    seen = set(crawler.seen)
    assert {"/problems/validation", "/problems/registration-closed", "/api/v1/kinds", "/account/password-reset"} <= seen
    assert any(path.startswith("/static/drf_spectacular_sidecar/") for path in seen)
    assert any(path.startswith("/admin/accounts/") for path in seen)
    assert len(seen) > 60


def test_a_link_that_leads_nowhere_is_found(db: None) -> None:
    crawler = Crawler()
    crawler.crawl(["/nowhere"])
    assert crawler.wrong == ["/nowhere in the start answers 404"]


def anchors(document: Path) -> set[str]:
    """As they are made of a document's headings."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_of_a_document_leads_somewhere(db: None, document: Path) -> None:
    wrong = []
    for link in re.findall(r"\]\(([^)\s]+)\)", document.read_text()):
        parts = urlsplit(link)
        if parts.scheme:
            continue  # somebody else's
        target = document if not parts.path else document.parent / parts.path
        if not target.exists() or (parts.fragment and parts.fragment not in anchors(target)):
            wrong.append(link)
    assert wrong == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_page_that_a_document_names_is_served(db: None, document: Path) -> None:
    named = r"`(?:GET )?(/(?:admin|api/(?:docs|redoc|schema)|health|account)[\w/-]*)`"
    pages = set(re.findall(named, document.read_text()))
    crawler = Crawler()
    for page in pages:
        crawler.visit(page, document.name)
    assert crawler.wrong == []
