"""Every command, variable, port, path and health check in docker/compose.yml is real."""

import base64
import graphlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.conf import settings
from django.core.management import get_commands, load_command_class
from granian.cli import cli as granian

from processing.kafka.reading import Message, read
from project.environment import Environment
from scripts.place import ROOT
from tests.docker import compose
from tests.docker.compose import by_default, composition, image_command, image_environment, instruction, ours, services

VARIABLES = {name.upper() for name in Environment.model_fields}
EACH = pytest.mark.parametrize("name", services())


def mounted_secrets(service: dict[str, Any]) -> dict[str, str]:
    """The secrets that a service is given, and the name that each has there."""
    given = service.get("secrets", [])
    return dict((s, s) if isinstance(s, str) else (s["source"], s["target"]) for s in given)


@pytest.mark.parametrize("name", ours())
def test_every_command_can_be_given(name: str) -> None:
    words = ours()[name].get("command", image_command())
    if words[0] == "granian":
        parsed = granian.make_context("granian", words[1:]).params
        module, name = parsed["app"].split(":")
        found = find_spec(module)  # not imported: an entry point sets its process up
        assert found is not None
        assert found.origin is not None
        assert re.search(rf"^((async )?def )?{name}\b", Path(found.origin).read_text(), re.MULTILINE)
        assert (parsed["host"], parsed["port"]) == ("0.0.0.0", 8000)
    else:
        python, script, command, *arguments = words
        assert (python, script) == ("python", "manage.py")
        parser = load_command_class(get_commands()[command], command).create_parser("manage.py", command)
        parser.parse_args(arguments)


@pytest.mark.parametrize("name", ours())
def test_every_variable_is_a_setting(name: str) -> None:
    assert set(ours()[name]["environment"]) <= VARIABLES


def test_the_images_own_variables_are_settings_or_pythons() -> None:
    assert {name for name in image_environment() if not name.startswith("PYTHON")} - {"PATH"} <= VARIABLES


def test_the_secrets_that_are_made_are_settings_that_fit(secrets: Path) -> None:
    given = {name for service in ours().values() for name in mounted_secrets(service).values()}
    assert {name.upper() for name in given} <= VARIABLES
    kept = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    show = "from project.settings import ENV; print(ENV.database_url, ENV.rabbitmq_url, ENV.redis_url, ENV.secret_key)"
    environment = kept | {name: by_default(value) for name, value in ours()["api"]["environment"].items()}
    said = subprocess.run(
        [sys.executable, "-c", show],
        env=environment | {"SECRETS_DIR": str(secrets)},
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert said.returncode == 0, said.stderr
    urls = [urlsplit(word) for word in said.stdout.split()[:3]]
    assert [(url.hostname, url.port) for url in urls] == [("postgres", 5432), ("rabbitmq", 5672), ("redis", 6379)]
    assert f"default_pass = {urls[1].password}\n" in (secrets / "rabbitmq.conf").read_text()
    assert f"default_vhost = {urls[1].path[1:]}\n" in (secrets / "rabbitmq.conf").read_text()
    assert f"requirepass {urls[2].password}\n" in (secrets / "redis.conf").read_text()


def test_only_migrations_connect_as_the_owner_of_the_schema_and_nobody_as_its_superuser(secrets: Path) -> None:
    roles = {}
    for name, service in ours().items():
        [source] = [source for source, target in mounted_secrets(service).items() if target == "database_url"]
        url = urlsplit((secrets / source).read_text())
        assert url.path[1:] == services()["postgres"]["environment"]["POSTGRES_DB"]
        role = str(url.username)
        assert url.password == (secrets / f"{role.replace('ordered_work', 'postgres')}_password").read_text()
        roles[name] = role
    assert roles.pop("migrate") == "ordered_work_owner"
    assert set(roles.values()) == {"ordered_work_service"}
    watched = services()["postgres-exporter"]["environment"]
    assert watched["DATA_SOURCE_USER"] == "ordered_work_monitor"
    assert services()["postgres"]["environment"]["POSTGRES_USER"] not in {*roles.values(), "ordered_work_owner"}


def test_every_secret_is_made_and_nobody_else_can_read_them(secrets: Path) -> None:
    declared = composition()["secrets"]
    for name, secret in declared.items():
        assert secret["file"] == f"./secrets/{name}"
        assert (secrets / name).stat().st_size
        assert (secrets / name).stat().st_mode & 0o004  # by the users that the containers have
    assert secrets.stat().st_mode & 0o077 == 0
    used = {name for service in services().values() for name in mounted_secrets(service)}
    assert used == set(declared)


def test_making_secrets_again_changes_none(secrets: Path) -> None:
    before = {path.name: path.read_bytes() for path in secrets.iterdir()}
    done = subprocess.run([secrets.parent / "make-secrets"], check=True, capture_output=True, text=True)
    assert done.stdout == ""
    assert {path.name: path.read_bytes() for path in secrets.iterdir()} == before


MakeSecrets = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def make_secrets(tmp_path: Path) -> MakeSecrets:
    """Runs a copy of docker/make-secrets, as it is typed at the repository's root."""
    (tmp_path / "docker").mkdir()
    shutil.copy(compose.DOCKER / "make-secrets", tmp_path / "docker")
    command = ["/bin/sh", "docker/make-secrets"]
    return lambda **variables: subprocess.run(
        command, cwd=tmp_path, env={**os.environ, **variables}, capture_output=True, text=True, check=False
    )


def test_secrets_lie_beside_the_script_whatever_cdpath_says(make_secrets: MakeSecrets, tmp_path: Path) -> None:
    assert make_secrets(CDPATH=str(tmp_path)).returncode == 0
    assert (tmp_path / "docker" / "secrets" / "tls.crt").stat().st_size
    assert len(list(tmp_path.iterdir())) == 1


def test_without_openssl_it_is_said_what_is_missing(make_secrets: MakeSecrets, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    for program in ("dirname", "mkdir", "chmod", "od", "tr", "cat", "mv", "sed"):
        (tmp_path / "bin" / program).symlink_to(shutil.which(program) or "")
    done = make_secrets(PATH=str(tmp_path / "bin"))
    assert (done.returncode, "openssl" in done.stderr) == (1, True)
    assert make_secrets().stdout.startswith(f"made {tmp_path}/docker/secrets/tls.crt"), "once it is there"


@EACH
def test_whoever_is_waited_for_can_become_what_is_waited_for(name: str) -> None:
    for other, wanted in services()[name].get("depends_on", {}).items():
        if wanted["condition"] == "service_healthy":
            own = services()[other].get("healthcheck")
            assert own or services()[other]["image"].startswith("ordered-work"), other
        else:
            assert (wanted["condition"], services()[other]["restart"]) == (
                "service_completed_successfully",
                "on-failure:5",
            )


@EACH
def test_whoever_is_waited_for_is_started_too(name: str) -> None:
    for other in services()[name].get("depends_on", {}):
        assert set(services()[name].get("profiles", [])) <= set(services()[other].get("profiles", [])) or (
            "profiles" not in services()[other]
        )


def test_servers_come_first_then_the_schema_then_the_processes_then_nginx() -> None:
    order = list(graphlib.TopologicalSorter({n: s.get("depends_on", {}) for n, s in services().items()}).static_order())
    for before, after in [("postgres", "migrate"), ("migrate", "api"), ("rabbitmq", "worker"), ("api", "nginx")]:
        assert order.index(before) < order.index(after)
    assert all("migrate" in service["depends_on"] for name, service in ours().items() if name != "migrate")


@EACH
def test_every_container_is_contained(name: str) -> None:
    service = services()[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "cap_add" not in service
    assert "no-new-privileges:true" in service["security_opt"]
    assert set(service["deploy"]["resources"]["limits"]) == {"cpus", "memory"}
    stage = {"ordered-work": "service", "ordered-work-edge": "edge"}.get(service["image"])
    user = instruction(stage, "USER") if stage else service["user"]
    assert re.fullmatch(r"[1-9]\d*:\d+", user)


@EACH
def test_every_image_is_ours_or_of_a_version(name: str) -> None:
    image = services()[name]["image"]
    assert image in ("ordered-work", "ordered-work-edge") or re.search(r":v?\d", image)


@EACH
def test_any_number_of_replicas_can_run(name: str) -> None:
    assert "container_name" not in services()[name]
    assert "ports" not in services()[name] or name in ("nginx", "grafana")


def test_kafka_is_there_for_those_who_ask_for_it_alone() -> None:
    assert services()["kafka"]["profiles"] == services()["ingest"]["profiles"] == ["kafka"]
    assert [name for name, service in services().items() if "kafka" in service.get("depends_on", {})] == ["ingest"]


def test_what_is_sent_to_kafka_is_read_from_where_it_is() -> None:
    told = {name: by_default(value) for name, value in ours()["ingest"]["environment"].items()}
    assert told["KAFKA_BROKERS"] == services()["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"].split("//")[1]
    assert told.items() >= {name: by_default(value) for name, value in ours()["worker"]["environment"].items()}.items()
    guide = (ROOT / "docs" / "deployment.md").read_text()
    assert f"--topic {told['KAFKA_TOPICS']} " in guide
    event = re.search(r"^echo '(\w+)\|(.+)' \\$", guide, re.MULTILINE)
    assert event
    assert read(Message(told["KAFKA_TOPICS"], 0, 0, event[1].encode(), event[2].encode())).user == "ada"


def test_kafka_is_one_node_that_is_found_by_its_name_and_keeps_its_data() -> None:
    kafka = services()["kafka"]
    told = kafka["environment"]
    ports = {name: int(port) for name, port in re.findall(r"(\w+)://:(\d+)", told["KAFKA_LISTENERS"])}
    assert set(told["KAFKA_PROCESS_ROLES"].split(",")) == {"broker", "controller"}
    assert told["KAFKA_ADVERTISED_LISTENERS"] == f"PLAINTEXT://kafka:{ports['PLAINTEXT']}"
    voters = f"{told['KAFKA_NODE_ID']}@kafka:{ports[told['KAFKA_CONTROLLER_LISTENER_NAMES']]}"
    assert told["KAFKA_CONTROLLER_QUORUM_VOTERS"] == voters
    assert kafka["healthcheck"]["test"][-1] == str(ports["PLAINTEXT"])
    assert len(base64.urlsafe_b64decode(told["CLUSTER_ID"] + "==")) == 16
    assert kafka["volumes"] == [f"kafka:{told['KAFKA_LOG_DIRS']}"]
    written = {mount.partition(":")[0]: mount.partition(":")[2] for mount in kafka["tmpfs"]}
    uid = kafka["user"].partition(":")[0]
    assert all(f"uid={uid}" in written[path] for path in ("/opt/kafka/config", "/opt/kafka/logs"))


@EACH
def test_every_file_that_is_mounted_is_there(name: str) -> None:
    for source in compose.bind_mounts(services()[name]):
        assert source.exists()
    for network in services()[name]["networks"]:
        assert network in composition()["networks"]


def test_the_network_of_the_servers_has_no_way_out() -> None:
    assert composition()["networks"]["inside"]["internal"] is True
    for name in ("postgres", "rabbitmq", "redis", "kafka", "migrate"):
        assert services()[name]["networks"] == ["inside"]


@pytest.mark.parametrize("name", ours())
def test_stopping_waits_for_running_handlers(name: str) -> None:
    assert int(ours()[name]["stop_grace_period"].removesuffix("s")) > settings.ENV.stop_grace_seconds + 5


def test_health_is_asked_where_it_is_answered() -> None:
    own = image_environment()
    asked = compose.exec_form(instruction("service", "HEALTHCHECK"))
    assert asked[0] == "python"
    compile(asked[2], "HEALTHCHECK", "exec")
    assert f"http://127.0.0.1:{own['HEALTH_PORT']}/health/live" in asked[2]
    assert own["HEALTH_HOST"] == "0.0.0.0"
    assert instruction("service", "EXPOSE") == own["HEALTH_PORT"]


def test_nginx_is_given_all_that_its_template_asks_for_and_no_more() -> None:
    asked = set()
    for template in (compose.DOCKER / "nginx" / "templates").glob("*.template"):
        asked |= set(re.findall(r"\$\{(\w+)\}", re.sub(r"(?m)^\s*#.*$", "", template.read_text())))
    given = set(services()["nginx"]["environment"])
    assert asked == given - {"NGINX_ENTRYPOINT_LOCAL_RESOLVERS"} | {"NGINX_LOCAL_RESOLVERS"}
    for name in ("API", "EVENTS"):
        host, _, port = services()["nginx"]["environment"][name].partition(":")
        assert host in ours()
        assert port == image_environment()["HEALTH_PORT"]


def test_nginx_lets_through_what_the_api_takes() -> None:
    [template] = (compose.DOCKER / "nginx" / "templates").glob("*.template")
    found = dict(re.findall(r"client_max_body_size (\w+); # (\w+)", template.read_text()))
    sizes = {"64k": 64 * 1024, "1m": 1024 * 1024}
    assert {name: sizes[size] for size, name in found.items()} == {
        "BODY_LIMIT": Environment.model_fields["body_limit"].default,
        "BATCH_BODY_LIMIT": Environment.model_fields["batch_body_limit"].default,
    }
