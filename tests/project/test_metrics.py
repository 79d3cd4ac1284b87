"""GET /metrics: Prometheus understands it, it survives what is away, and no stranger makes it grow."""

import re
from collections.abc import Iterator

import pytest
from django.db import connection
from prometheus_client import REGISTRY
from prometheus_client.parser import text_string_to_metric_families

from accounts.mail import delivery  # noqa: F401  (the dispatcher counts mails, the deliverer webhooks)
from processing.webhooks import metrics as webhooks  # noqa: F401
from processing.worker.supervisor import Supervisor
from project.telemetry import health, metrics
from queues.operations import backlog
from queues.operations.backlog import Recent
from scripts.place import ROOT
from tests.client import Client
from tests.processing.crew import new_user, submit
from tests.queues.api import Caller

pytestmark = pytest.mark.django_db(transaction=True)

Series = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    recent = health._Recent()
    monkeypatch.setattr(health, "_recent", recent)
    monkeypatch.setattr(backlog, "recent", Recent())
    yield
    for thread in recent.threads.values():
        thread.submit(lambda: connection.close())  # its own, not that of this thread
        thread.shutdown(wait=True)


def scrape() -> Series:
    response = Client().get("/metrics")
    assert response.status_code == 200
    assert response["Content-Type"].startswith("text/plain")
    found: Series = {}
    for family in text_string_to_metric_families(response.content.decode()):
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in found, f"{key} is there twice"
            found[key] = sample.value
    return found


def value(found: Series, name: str, **labels: str) -> float:
    return found[f"ordered_work_{name}", frozenset(labels.items())]


def test_the_whole_installation_is_shown() -> None:
    submit(new_user(), 1, 2, kind="demo.echo")
    submit(new_user(), 3, kind="demo.echo")
    found = scrape()
    assert value(found, "depth", state="idle") == 3
    assert value(found, "depth_max") == 2
    assert value(found, "unpublished") == 3
    assert value(found, "backend_up", backend="postgresql") == 1
    assert value(found, "backend_up", backend="dispatcher") == 0
    assert value(found, "dispatchers_leading") == 0
    assert value(found, "oldest_waiting_seconds", queues="moving") > 0
    assert value(found, "dispatcher_lag_seconds", task="publish") > 0


def test_without_postgresql_the_rest_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("postgresql", "rabbitmq", "redis", "migrations", "dispatcher")
    monkeypatch.setattr(health, "checks", lambda: dict.fromkeys(names, "down"))
    found = scrape()
    assert value(found, "backend_up", backend="postgresql") == 0
    assert ("ordered_work_depth_max", frozenset()) not in found
    assert any(name == "ordered_work_accepted_total" for name, _ in found)


def test_answers_are_counted_by_route() -> None:
    before = scrape()
    caller = Caller()
    request = caller.submit(1)
    for _ in range(2):
        assert caller.get(f"requests/{request['id']}").status == 200
    found = scrape()
    labels = {"route": "api/v1/requests/<str:request_id>", "method": "GET"}
    told = value(found, "http_requests_total", **labels, status="200")
    assert (
        told - before.get(("ordered_work_http_requests_total", frozenset({**labels, "status": "200"}.items())), 0) == 2
    )
    assert value(found, "http_request_seconds_count", **labels) >= 2


def test_no_stranger_and_no_new_user_adds_a_series() -> None:
    def visit(name: str) -> None:
        client = Client()
        client.get(f"/{name}")
        client.get(f"/api/v1/{name}")
        client.generic(name.upper(), "/health/live")
        client.get("/health/live", headers={"host": f"{name}.example"})
        caller = Caller()
        caller.get(f"requests/{caller.submit(1)['id']}")

    visit("one")
    before = set(scrape())
    for name in ("two", "three"):
        visit(name)
    assert set(scrape()) == before


def test_the_admins_pages_are_measured_by_django_prometheus() -> None:
    Client().get("/admin/login/")
    names = {name for name, labels in scrape() if ("view", "admin:login") in labels}
    assert "django_http_requests_latency_seconds_by_view_method_count" in names
    Client().get("/api/v1/kinds")
    views = {dict(labels).get("view", "") for name, labels in scrape() if name.startswith("django_http")}
    assert not any("queues.api.requests" in view for view in views), "the API is measured by what costs it less"


def test_every_name_is_documented_and_every_documented_name_is_there() -> None:
    families = [*REGISTRY.collect(), *metrics.Installation().collect(), *Supervisor([], {}).collect()]
    ours = [family for family in families if family.name.startswith("ordered_work_")]
    told = {family.name + ("_total" if family.type == "counter" else "") for family in ours}
    rows = [line for line in (ROOT / "docs/metrics.md").read_text().splitlines() if line.startswith("| `")]
    documented = {name for row in rows for name in re.findall(r"`(ordered_work_\w+)`", row)}
    assert documented == told
