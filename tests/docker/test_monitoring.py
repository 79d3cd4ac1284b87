"""Prometheus, Alertmanager and Grafana, as shipped, tell what is so."""

import json
import math
import re
import shlex
import subprocess
import threading
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
import yaml
from django.core.management import get_commands, load_command_class

from processing.management.service import ServiceCommand
from queues.limits import deployment
from scripts.place import ROOT, free_port
from scripts.servers.process import launch
from tests.docker.compose import DOCKER, image_environment, ours, services
from tests.docker.system import System
from tests.waiting import until

ALERTS = ROOT / "docs" / "alerts.md"
UNITS = {"short", "s", "bytes", "ops", "reqps", "percentunit"}
Json = dict[str, Any]


@cache
def alerts() -> dict[str, Json]:
    groups = yaml.safe_load((DOCKER / "prometheus" / "alerts.yml").read_text())["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"] if "alert" in rule}


@cache
def dashboards() -> dict[str, Json]:
    return {path.stem: json.loads(path.read_text()) for path in (DOCKER / "grafana" / "dashboards").glob("*.json")}


def panels() -> dict[str, Json]:
    return {
        f"{name}: {panel['title']}": panel
        for name, dashboard in dashboards().items()
        for panel in dashboard["panels"]
        if panel["type"] != "row"
    }


@pytest.mark.parametrize(
    "words",
    [["check", "config", "prometheus.yml"], ["check", "rules", "alerts.yml"], ["test", "rules", "alerts_test.yml"]],
    ids=" ".join,
)
def test_prometheus_takes_the_shipped_files(programs: dict[str, str], words: list[str]) -> None:
    done = subprocess.run(
        [programs["promtool"], *words], cwd=DOCKER / "prometheus", capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", alerts())
def test_every_alert_is_tried_firing_and_silent(name: str) -> None:
    tests = yaml.safe_load((DOCKER / "prometheus" / "alerts_test.yml").read_text())["tests"]
    tried = [bool(one["exp_alerts"]) for test in tests for one in test["alert_rule_test"] if one["alertname"] == name]
    assert set(tried) == {True, False}


@pytest.mark.parametrize("name", alerts())
def test_every_alert_has_a_paragraph_that_says_what_to_type(name: str) -> None:
    assert alerts()[name]["annotations"]["runbook"] == f"docs/alerts.md#{name.lower()}"
    found = re.search(rf"(?ms)^## {name}$(.*?)(?=^## |\Z)", ALERTS.read_text())
    assert found is not None, f"no paragraph ## {name}"
    lines = "\n".join(re.findall(r"(?ms)^```bash\n(.*?)^```$", found[1]))
    assert lines, "no command to type"
    for command, rest in re.findall(r"(?m)^(?:\w+=\S+ )*manage\.py (\w+)(.*)$", lines):
        loaded = load_command_class(get_commands()[command], command)
        assert not isinstance(loaded, ServiceCommand), "the process of the container it is typed in holds HEALTH_PORT"
        loaded.create_parser("manage.py", command).parse_args(shlex.split(rest, comments=True))
    assert set(re.findall(r"(?: up -d |--scale |deploy/)(\w+)", lines)) <= set(services())


def test_prometheus_scrapes_every_process_that_is_composed() -> None:
    settings = yaml.safe_load((DOCKER / "prometheus" / "prometheus.yml").read_text())
    by_name = {}
    for job in settings["scrape_configs"]:
        for found in job.get("dns_sd_configs", []):
            assert (found["type"], str(found["port"])) == ("A", image_environment()["HEALTH_PORT"])
            by_name[job["job_name"]] = found["names"]
    assert by_name == {name: [name] for name in ours() if name != "migrate"}
    fixed = [t for job in settings["scrape_configs"] for one in job.get("static_configs", []) for t in one["targets"]]
    fixed += [t for one in settings["alerting"]["alertmanagers"] for c in one["static_configs"] for t in c["targets"]]
    assert {target.split(":")[0] for target in fixed} - {"127.0.0.1"} <= set(services())


def test_grafana_is_provisioned_with_what_is_there() -> None:
    provisioning = DOCKER / "grafana" / "provisioning"
    sources = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())["datasources"]
    assert {re.sub(r"^http://|:\d+$", "", one["url"]) for one in sources} <= set(services())
    [provider] = yaml.safe_load((provisioning / "dashboards" / "dashboards.yml").read_text())["providers"]
    mounted = dict(volume.split(":")[:2] for volume in services()["grafana"]["volumes"])
    assert mounted["./grafana/dashboards"] == provider["options"]["path"]
    assert mounted["./grafana/provisioning"] == "/etc/grafana/provisioning"
    home = services()["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert Path(home).stem in dashboards()
    assert {one["uid"] for one in sources} >= {panel["datasource"]["uid"] for panel in panels().values()}
    assert sorted(dashboards()) == ["kinds", "machinery", "overview"]
    assert len({dashboard["uid"] for dashboard in dashboards().values()}) == 3


@pytest.mark.parametrize("name", panels())
def test_every_panel_says_what_it_shows_and_in_which_unit(name: str) -> None:
    panel = panels()[name]
    assert len(panel["description"]) > 10
    assert panel["fieldConfig"]["defaults"]["unit"] in UNITS
    assert panel["targets"]
    for alert in re.findall(r"Alerts?: (\w+)", panel["description"]):
        assert alert in alerts()


@pytest.mark.parametrize("name", ["overview", "kinds", "machinery"])
def test_no_panel_covers_another(name: str) -> None:
    places = [panel["gridPos"] for panel in dashboards()[name]["panels"]]
    covered = [
        (x, y) for at in places for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])
    ]
    assert len(covered) == len(set(covered))
    assert all(x < 24 for x, _ in covered)


def test_alertmanager_sends_one_message_for_one_cause(programs: dict[str, str], tmp_path: Path) -> None:
    port = free_port()
    shipped = f"--config.file={DOCKER}/alertmanager/alertmanager.yml"
    command = [programs["prometheus-alertmanager"], shipped, "--cluster.listen-address="]
    command += [f"--storage.path={tmp_path}", f"--web.listen-address=127.0.0.1:{port}"]
    with (tmp_path / "log").open("wb") as output:
        process = launch(command, environment={}, output=output, folder=tmp_path)
    api = f"http://127.0.0.1:{port}/api/v2/alerts"

    def alerts() -> dict[str, bool]:
        try:
            with urlopen(api, timeout=10) as answer:
                return {a["labels"]["alertname"]: bool(a["status"]["inhibitedBy"]) for a in json.load(answer)}
        except OSError:
            return {"nobody answers": True}

    try:
        until(lambda: alerts() == {}, 60, "Alertmanager answers")
        fired = [
            {"labels": {"alertname": "BackEndDown", "backend": "postgresql", "severity": "critical"}},
            {"labels": {"alertname": "NoWorkers", "severity": "critical"}},
            {"labels": {"alertname": "FailureRate", "kind": "demo.echo", "severity": "warning"}},
        ]
        json_type = {"Content-Type": "application/json"}
        urlopen(Request(api, json.dumps(fired).encode(), json_type), timeout=10).close()
        until(
            lambda: alerts() == {"BackEndDown": False, "NoWorkers": True, "FailureRate": False},
            60,
            "only what follows from PostgreSQL's absence is kept back",
        )
    finally:
        process.kill()


@pytest.fixture
def system(transactional_db: None, programs: dict[str, str], tmp_path: Path) -> Iterator[System]:
    """All jobs scraped, before anything was asked of them."""
    with System(programs, tmp_path) as system:
        jobs = set(system.ports)
        try:
            until(lambda: system.scraped() == jobs, 120, f"Prometheus reaches {jobs}")
        except AssertionError:
            pytest.fail(f"reached: {system.scraped()}\n{system.logs()}")
        yield system


def test_every_query_of_every_panel_returns_data(system: System) -> None:
    deployment.set_limits("demo.echo", max_concurrency=50)  # of kinds without a limit there is nothing to see
    person = {"username": "ada", "password": "a long and unusual one"}
    system.ask("POST", "/api/v1/auth/register", person)
    token = system.ask("POST", "/api/v1/auth/token", person)["access"]
    work = [{"kind": "demo.echo", "payload": n} for n in range(5)] + [
        {"kind": "demo.flaky", "payload": {"failures": 1}}
    ]

    def work_on() -> None:
        """A rate shows what happens between two looks of Prometheus: all that was done before the first is none."""
        while not done.wait(1):
            system.ask("POST", "/api/v1/requests/batch", {"requests": work}, token)

    queries = {
        (name, target["expr"].replace("$__rate_interval", "1m"))
        for name, panel in panels().items()
        for target in panel["targets"]
    }
    missing = set(queries)

    def all_have_data() -> bool:
        for query in tuple(missing):
            if any(not math.isnan(float(series["value"][1])) for series in system.query(query[1])):
                missing.discard(query)
        return not missing

    done = threading.Event()
    worker = threading.Thread(target=work_on)
    worker.start()
    try:
        until(all_have_data, 60, "data")
    except AssertionError:
        pytest.fail("no data:\n" + "\n".join(f"{name}: {query}" for name, query in sorted(missing)))
    finally:
        done.set()
        worker.join(30)
    for name, rule in alerts().items():  # each expression is of series that exist, so that it can ever fire
        for metric in set(re.findall(r"\b(?:ordered_work[:\w]+|up)\b", rule["expr"])):
            assert system.query(metric), f"{name} asks for {metric}"
    assert {series["metric"]["alertname"] for series in system.query('ALERTS{alertstate="firing"}')} == set()
