"""The running system with all that watches it: our processes, exporters, Prometheus."""

import os
import sys
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlencode, urlsplit
from urllib.request import Request, urlopen

import orjson
import yaml

from scripts.place import ROOT, free_port
from scripts.servers.process import launch
from scripts.servers.rabbitmq import Rabbitmq
from tests.docker.compose import by_default, image_command, ours
from tests.processing.kafka.brokers import mesh

SHIPPED = ROOT / "docker" / "prometheus"


class WatchedRabbitmq(Rabbitmq):
    """With the plugin that the composed one has, on a port of its own."""

    def prepare(self) -> None:
        super().prepare()
        self.state.setdefault("metrics_port", free_port())
        self.remember()
        (self.folder / "enabled_plugins").write_text("[rabbitmq_prometheus].\n")
        with (self.folder / "rabbitmq.conf").open("a") as settings:
            settings.write(f"prometheus.tcp.ip = 127.0.0.1\nprometheus.tcp.port = {self.state['metrics_port']}\n")


class System:
    """Runs while the block does, with what compose.yml sets; `ports` are the scraped ones, by their job.

    Prometheus asks each process by its address, which is none of ALLOWED_HOSTS, over plain HTTP: as it does there.
    """

    def __init__(self, programs: dict[str, str], folder: Path) -> None:
        self.programs = programs
        self.folder = folder
        self.ports: dict[str, int] = {}
        self.running = ExitStack()

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.running.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.running.close()

    def _start(self) -> None:
        rabbitmq = WatchedRabbitmq(self.folder / "rabbitmq")
        self.running.callback(rabbitmq.kill)
        rabbitmq.launch()
        self.ports["rabbitmq"] = rabbitmq.state["metrics_port"]
        self._start_exporter()
        places = {"RABBITMQ_URL": rabbitmq.url, "QUEUE_PREFIX": ""}
        for name in ("api", "events"):
            self._start_ours(name, places)
        rabbitmq.wait()
        places["KAFKA_BROKERS"] = self.running.enter_context(mesh(self.folder)).address
        for name in ("dispatcher", "worker", "webhooks", "ingest"):
            self._start_ours(name, places)
        self._start_prometheus()

    def _start_ours(self, name: str, places: dict[str, str]) -> None:
        port = self.ports[name] = free_port()
        words = ours()[name].get("command", image_command())
        here = {"0.0.0.0": "127.0.0.1", "8000": str(port)}
        moved = [here.get(word, word) for word in words]
        command = [sys.executable, "-m", *moved] if moved[0] == "granian" else [sys.executable, *moved[1:]]
        given = {variable: by_default(value) for variable, value in ours()[name]["environment"].items()}
        given |= {
            "SECRETS_DIR": "",
            "HEALTH_PORT": str(port),
            "OPTIONAL_KINDS": "demo",
        }  # the secrets are in the environment here
        kept = {variable: value for variable, value in os.environ.items() if variable != "DEBUG"}
        self._launch(name, command, kept | given | places)

    def _start_exporter(self) -> None:
        exporter = self.programs["prometheus-postgres-exporter"]
        port = self.ports["postgres"] = free_port()
        url = urlsplit(os.environ["DATABASE_URL"])
        socket = {} if url.hostname else {"host": "/var/run/postgresql"}
        source = url._replace(query=urlencode({"sslmode": "disable"} | socket)).geturl()
        command = [exporter, f"--web.listen-address=127.0.0.1:{port}"]
        self._launch("exporter", command, {"DATA_SOURCE_NAME": source, "PATH": os.environ["PATH"]})

    def _start_prometheus(self) -> None:
        """With the shipped files, but every second, and with what is scraped where it is here."""
        prometheus = self.programs["prometheus"]
        port = self.ports["prometheus"] = free_port()
        settings = yaml.safe_load((SHIPPED / "prometheus.yml").read_text())
        settings["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        settings["rule_files"] = [str(SHIPPED / name) for name in settings["rule_files"]]
        settings["scrape_configs"] = [
            {"job_name": one["job_name"], "static_configs": [{"targets": [f"127.0.0.1:{self.ports[one['job_name']]}"]}]}
            for one in settings["scrape_configs"]
        ]
        (self.folder / "prometheus.yml").write_text(yaml.safe_dump(settings))
        command = [prometheus, f"--config.file={self.folder}/prometheus.yml", f"--storage.tsdb.path={self.folder}/data"]
        self._launch("prometheus", [*command, f"--web.listen-address=127.0.0.1:{port}"], {"PATH": os.environ["PATH"]})

    def _launch(self, name: str, command: list[str], environment: dict[str, str]) -> None:
        with (self.folder / f"{name}.log").open("wb") as output:
            process = launch(command, environment=environment, output=output, folder=ROOT)
        self.running.callback(process.kill)

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The series of an instant query."""
        found: list[dict[str, Any]] = self.prometheus("query", query=expression)["result"]
        return found

    def prometheus(self, what: str, **arguments: str) -> Any:
        url = f"http://127.0.0.1:{self.ports['prometheus']}/api/v1/{what}?{urlencode(arguments)}"
        with urlopen(url, timeout=30) as answer:
            return orjson.loads(answer.read())["data"]

    def scraped(self) -> Iterable[str]:
        """The jobs that Prometheus reaches."""
        try:
            return {
                one["labels"]["job"] for one in self.prometheus("targets")["activeTargets"] if one["health"] == "up"
            }
        except OSError:
            return set()

    def ask(self, method: str, path: str, body: Any = None, token: str = "") -> Any:
        headers = {"Content-Type": "application/json", "Host": "localhost", "X-Forwarded-Proto": "https"}  # as nginx
        headers |= {"Authorization": f"Bearer {token}"} if token else {}
        sent = None if body is None else orjson.dumps(body)
        request = Request(f"http://127.0.0.1:{self.ports['api']}{path}", sent, headers, method=method)
        with urlopen(request, timeout=60) as answer:  # noqa: S310  (http, above)
            return orjson.loads(answer.read())

    def logs(self) -> str:
        return "\n".join(f"== {log.name}\n{log.read_text()[-1000:]}" for log in self.folder.glob("*.log"))
