"""The manifests for a cluster fit Kubernetes' own schemas, and say the same as docker/compose.yml."""

from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from scripts.place import ROOT
from tests.docker.compose import by_default, image_command, image_environment, instruction, ours, services
from tests.docker.edge import variables

FOLDER = ROOT / "docker" / "kubernetes"
KAFKA = ROOT / "docker" / "kubernetes-kafka"  # the same, and what reads Kafka
OLDEST = "1.30"  # that is still somebody's
Manifest = dict[str, Any]


@cache
def manifests() -> dict[str, Manifest]:
    """Every object, by its kind and name."""
    found: dict[str, Manifest] = {}
    paths = [FOLDER / name for name in kustomization()["resources"]]
    for path in [*paths, KAFKA / "ingest.yaml"]:
        for one in yaml.safe_load_all(path.read_text()):
            name = f"{one['kind']}/{one['metadata']['name']}"
            assert name not in found
            found[name] = one
    return found


@cache
def kustomization(folder: Path = FOLDER) -> Manifest:
    read: Manifest = yaml.safe_load((folder / "kustomization.yaml").read_text())
    return read


def of_kind(kind: str) -> dict[str, Manifest]:
    return {one["metadata"]["name"]: one for name, one in manifests().items() if name.startswith(f"{kind}/")}


def pods() -> dict[str, Manifest]:
    """What the pods are made from, by the name of what makes them."""
    return {name: one["spec"]["template"] for name, one in (of_kind("Deployment") | of_kind("Job")).items()}


def settings(name: str) -> dict[str, str]:
    generators = kustomization()["configMapGenerator"] + kustomization(KAFKA)["configMapGenerator"]
    [found] = [one for one in generators if one["name"] == name]
    return dict(literal.split("=", 1) for literal in found["literals"])


EACH = pytest.mark.parametrize("name", pods())


def always() -> dict[str, Any]:
    """Our processes that are composed without a profile, or with Kafka's."""
    return {name: service for name, service in ours().items() if service.get("profiles") in (None, ["kafka"])}


@pytest.mark.parametrize("version", [OLDEST, kubernetes_validate.latest_version()])
@pytest.mark.parametrize("name", manifests())
def test_every_object_fits_its_schema(name: str, version: str) -> None:
    kubernetes_validate.validate(manifests()[name], version, strict=True)


def test_the_kustomization_fits_and_names_every_file() -> None:
    assert sorted(kustomization()["resources"]) == sorted(
        path.name for path in FOLDER.glob("*.yaml") if path.name != "kustomization.yaml"
    )
    assert {image["name"] for image in kustomization()["images"]} == {"ordered-work", "ordered-work-edge"}


def test_kafka_s_adds_one_process_to_all_the_others() -> None:
    added = kustomization(KAFKA)
    assert added["resources"] == ["../kubernetes", "ingest.yaml"]
    assert added["namespace"] == kustomization()["namespace"]
    assert [one for one in kustomization()["images"] if one["name"] == "ordered-work"] == added["images"]


def test_the_same_processes_run_as_composed() -> None:
    assert set(pods()) == set(always()) | {"edge"}
    for name, service in always().items():
        [container] = pods()[name]["spec"]["containers"]
        assert container.get("args", image_command()) == service.get("command", image_command())
        assert container["image"] == service["image"]
    assert services()["nginx"]["image"] == pods()["edge"]["spec"]["containers"][0]["image"]


def test_the_same_settings_are_given_as_composed() -> None:
    composed = {name for service in always().values() for name in service["environment"]}
    assert set(settings("settings")) | set(settings("kafka")) == composed
    assert settings("kafka") == {
        name: by_default(value) for name, value in ours()["ingest"]["environment"].items() if name.startswith("KAFKA_")
    }
    given = settings("edge")
    assert set(given) == set(variables()) - {"NGINX_LOCAL_RESOLVERS"}
    for name in ("API", "EVENTS"):
        host, _, port = given[name].partition(":")
        service, namespace, *domain = host.split(".")
        assert (namespace, domain) == (kustomization()["namespace"], ["svc", "cluster", "local"])
        assert of_kind("Service")[service]["spec"]["clusterIP"] == "None"
        assert port == image_environment()["HEALTH_PORT"]


@EACH
def test_every_pod_is_contained_as_the_strictest_policy_wants(name: str) -> None:
    spec = pods()[name]["spec"]
    [container] = spec["containers"]
    stage = "edge" if name == "edge" else "service"
    user, group = map(int, instruction(stage, "USER").split(":"))
    assert spec["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": user,
        "runAsGroup": group,
        "fsGroup": group,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert spec["automountServiceAccountToken"] is False
    assert "memory" in container["resources"]["limits"]
    assert {"cpu", "memory"} == set(container["resources"]["requests"])


@EACH
def test_whatever_is_mounted_is_there(name: str) -> None:
    spec = pods()[name]["spec"]
    [container] = spec["containers"]
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in spec["volumes"]}
    paths = {mount["mountPath"] for mount in container["volumeMounts"]}
    given = settings(container["envFrom"][0]["configMapRef"]["name"])
    assert {"/tmp", given["SECRETS_DIR"]} <= paths


@pytest.mark.parametrize("name", of_kind("Deployment"))
def test_every_pod_is_probed_where_it_answers(name: str) -> None:
    [container] = pods()[name]["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    asked = {probe: container[f"{probe}Probe"]["httpGet"] for probe in ("startup", "liveness", "readiness")}
    if name == "edge":
        assert {get["path"] for get in asked.values()} == {"/nginx"}
        assert (str(ports["http"]), str(ports["https"])) == (
            settings("edge")["HTTP_PORT"],
            settings("edge")["HTTPS_PORT"],
        )
    else:
        assert {probe: get["path"] for probe, get in asked.items()} == {
            "startup": "/health/live",
            "liveness": "/health/live",
            "readiness": "/health/ready",
        }
        assert str(ports["http"]) == image_environment()["HEALTH_PORT"]
    assert all(get["port"] == "http" for get in asked.values())


@pytest.mark.parametrize("name", of_kind("Deployment"))
def test_a_disruption_takes_some_never_all(name: str) -> None:
    budget = of_kind("PodDisruptionBudget")[name]["spec"]
    assert budget["selector"]["matchLabels"] == pods()[name]["metadata"]["labels"]
    assert budget["maxUnavailable"] in (1, "25%")
    replicas = of_kind("Deployment")[name]["spec"].get("replicas")
    least = replicas or of_kind("HorizontalPodAutoscaler")[name]["spec"]["minReplicas"]
    assert least >= 2
    assert (replicas is None) == (name in of_kind("HorizontalPodAutoscaler"))  # an autoscaled number is not ours to set


def test_workers_follow_the_work_that_waits() -> None:
    [metric] = of_kind("HorizontalPodAutoscaler")["worker"]["spec"]["metrics"]
    served = yaml.safe_load((ROOT / "docker" / "prometheus" / "adapter.yml").read_text())["rules"]["external"]
    assert metric["external"]["metric"]["name"] in {rule["name"]["as"] for rule in served}


def test_every_policy_and_service_selects_pods_that_exist() -> None:
    known = {name: pod["metadata"]["labels"]["app"] for name, pod in pods().items()}
    selectors = [one["spec"]["podSelector"] for one in of_kind("NetworkPolicy").values()]
    selectors += [{"matchLabels": one["spec"]["selector"]} for one in of_kind("Service").values()]
    for selector in selectors:
        named = [selector["matchLabels"]["app"]] if "matchLabels" in selector else []
        for expression in selector.get("matchExpressions", []):
            named += expression["values"]
        assert set(named) <= set(known.values())


def test_stopping_waits_as_long_as_composed() -> None:
    for name in always():
        if name != "migrate":
            grace = pods()[name]["spec"]["terminationGracePeriodSeconds"]
            assert grace >= int(ours()[name]["stop_grace_period"].removesuffix("s")) + 5


def test_secrets_are_named_and_never_shipped() -> None:
    assert not of_kind("Secret")
    for path in Path(FOLDER).iterdir():
        assert "secretGenerator" not in path.read_text()
