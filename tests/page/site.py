"""The service as a browser meets it: an API process, a dispatcher and a worker, on the tests' own servers."""

import json
import os
import sys
from http.client import HTTPConnection
from typing import IO, Any

from accounts.models import Session, User
from scripts.place import ROOT, free_port
from scripts.servers.process import Process, launch, stop_all
from tests.accounts.people import at_once, make_user
from tests.waiting import until

SETTINGS = {
    "EXTRA_APPS": "tests.page.work",
    "REGISTRATIONS_PER_MINUTE": "100000",
    "LOGINS_PER_MINUTE": "100000",
    "LOG_LEVEL": "WARNING",
}
SERVER = ["granian", "--interface", "asgi", "--log-level", "error", "--host", "127.0.0.1"]


class Site:
    """Its processes; `origin` is where the page is."""

    def __init__(self, log: IO[bytes]) -> None:
        self.port = free_port()
        self.log = log
        self.processes = {name: self.start(name) for name in ("api", "dispatch", "work")}

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self, name: str, **settings: str) -> Process:
        commands = {
            "api": ["-m", *SERVER, "--port", str(self.port), "project.asgi:application"],
            "dispatch": ["manage.py", "dispatch"],
            "work": ["manage.py", "work", "--processes", "1", "--threads", "4"],
        }
        command = [sys.executable, *commands[name]]
        return launch(command, environment=os.environ | SETTINGS | settings, output=self.log, folder=ROOT)

    def stop(self, *names: str) -> None:
        stop_all([self.processes.pop(name) for name in names or tuple(self.processes)], 20)

    def restart(self, name: str, **settings: str) -> None:
        self.processes[name] = self.start(name, **settings)

    def answers(self) -> bool:
        try:
            return self.call("GET", "/health/live")[0] == 200
        except OSError:
            return False

    def wait(self) -> None:
        until(self.answers, 60, "the API starts")

    def call(self, method: str, path: str, body: Any = None, token: str = "") -> tuple[int, Any]:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=20)
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
        try:
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            text = answer.read()
            return answer.status, json.loads(text) if text else None
        finally:
            connection.close()

    def owner(self, name: str, email: str = "") -> "Owner":
        """A new user, committed: a transaction of the test's own would show them to nobody else."""
        return at_once(1, lambda _: Owner(self, make_user(username=name, email=email)))[0]  # type: ignore[no-any-return]


class Owner:
    """A user, as their own program calls the API beside the page."""

    def __init__(self, site: Site, user: User) -> None:
        self.site, self.id, self.name = site, str(user.id), user.username
        self.token = Session.open(user).access
        self.browsers = Session.open(user).refresh

    def submit(self, *payloads: Any, kind: str = "demo.echo", **more: Any) -> list[str]:
        """The ids of one request for each payload, in one batch."""
        body = {"requests": [{"kind": kind, "payload": payload, **more} for payload in payloads]}
        status, answer = self.site.call("POST", "/api/v1/requests/batch", body, self.token)
        assert status == 202, answer
        return [one["id"] for one in answer["requests"]]

    def post(self, path: str) -> Any:
        return self.site.call("POST", f"/api/v1/{path}", None, self.token)[1]

    def get(self, path: str) -> Any:
        return self.site.call("GET", f"/api/v1/{path}", None, self.token)[1]
