"""`./run pictures`: small pictures of the live page and the admin for the documentation, from the running service."""

import base64
import os
import secrets
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scripts.place import ROOT, SetupError
from scripts.run.application import SMALL, choose_port, environment, migrate, services
from scripts.run.client import Client
from scripts.run.demo import running, wait_until_ready
from scripts.run.up import recorded
from scripts.servers import browser as chromium
from scripts.servers.borrowing import borrowed
from scripts.servers.process import signals_interrupt

if TYPE_CHECKING:
    from selenium.webdriver.chrome.webdriver import WebDriver

FOLDER = ROOT / "docs" / "pictures"
MOST_BYTES = 100_000
PICTURES = {  # name: width, height, dark
    "queue-light": (1360, 900, False),
    "queue-dark": (1360, 900, True),
    "queue-phone": (390, 844, False),
}
ADMIN = {  # of the page of that name, as of PICTURES
    "board": (1360, 900, False),
    "admin-queue": (1360, 900, False),
    "admin-request": (1360, 900, False),
}
READY_SECONDS = 30.0
WORK: list[dict[str, Any]] = [
    {"kind": "demo.echo", "payload": {"order": 1041, "customer": "Ada Lovelace"}},
    {"kind": "http.call", "payload": {"method": "GET", "url": "http://10.0.0.1/"}},
    {"kind": "demo.flaky", "payload": {"failures": 1}},
    *({"kind": "demo.steps", "payload": {"steps": 2, "delay_ms": 700}} for _ in range(3)),
    {"kind": "demo.steps", "payload": {"steps": 60, "delay_ms": 500}},
    {"kind": "demo.echo", "payload": {"order": 1042, "customer": "Grace Hopper"}},
    {"kind": "demo.steps", "payload": {"steps": 20, "delay_ms": 100}},
    {"kind": "demo.echo", "payload": {"order": 1043, "customer": "Alan Turing"}},
    {"kind": "demo.flaky", "payload": {"failures": 2}},
    {"kind": "demo.echo", "payload": {"order": 1044, "customer": "Edsger Dijkstra"}},
]


def main(_: list[str]) -> int:
    """Starts the service on a database of its own, fills a queue, and takes the pictures; 0 when all are small."""
    signals_interrupt()
    with recorded(), borrowed("demo", keep_servers=True) as places:
        port = choose_port()
        variables = environment(places, SMALL)
        migrate(variables)
        with running(services(port, size=SMALL), variables) as crew:
            wait_until_ready(crew, port)
            login = {"username": "ada", "password": secrets.token_urlsafe(12)}
            submit(port, login)
            page = open_browser()
            try:
                show(page, f"http://127.0.0.1:{port}/", login)
                sizes = {name: take(page, FOLDER / f"{name}.webp", *looks) for name, looks in PICTURES.items()}
                addresses = enter_admin(page, f"http://127.0.0.1:{port}", variables)
                for name, looks in ADMIN.items():
                    page.get(addresses[name])
                    # A traceback names this machine's folders.
                    page.execute_script(
                        "document.querySelectorAll('#content details').forEach((d) => (d.open = false))"
                    )
                    sizes[name] = take(page, FOLDER / f"{name}.webp", *looks)
            finally:
                page.quit()
    print("\n".join(f"docs/pictures/{name}.webp  {size:,} bytes" for name, size in sizes.items()))
    return int(max(sizes.values()) > MOST_BYTES)


def submit(port: int, login: dict[str, str]) -> None:
    """The user's work, as a program of theirs submits it."""
    Client(port).get("POST", "/api/v1/auth/register", login)
    client = Client(port, Client(port).get("POST", "/api/v1/auth/token", login)["access"])
    client.get("POST", "/api/v1/requests/batch", {"requests": WORK})
    later = (datetime.now(UTC) + timedelta(hours=3)).isoformat()
    client.get("POST", "/api/v1/requests", {**WORK[0], "not_before": later})


def open_browser() -> "WebDriver":
    """Chromium without a window. Raises SetupError where there is none."""
    from selenium import webdriver

    program, driver = chromium.find()
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for argument in chromium.arguments():
        options.add_argument(argument)
    return webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=driver))


def show(page: "WebDriver", address: str, login: dict[str, str]) -> None:
    """Signs in, and waits until the queue is there with something running. Raises SetupError."""
    page.get(address)
    wait_for(page, "document.querySelector('.way-in')")
    for field, text in login.items():
        page.find_element("name", field).send_keys(text)
    page.find_element("css selector", ".way-in [type=submit]").click()
    wait_for(page, "document.querySelector('.running progress[value]')?.max === 60")
    wait_for(page, "document.querySelector('.running progress').value > 14")
    wait_for(page, "!document.querySelector('.note')")  # what was said is over


def enter_admin(page: "WebDriver", root: str, variables: dict[str, str]) -> dict[str, str]:
    """Signs in as an operator; the addresses of the pages that are shown."""
    password = secrets.token_urlsafe(12)
    operator = {"DJANGO_SUPERUSER_USERNAME": "operator", "DJANGO_SUPERUSER_PASSWORD": password}
    command = [
        sys.executable,
        str(ROOT / "manage.py"),
        "createsuperuser",
        "--noinput",
        "--email",
        "operator@example.com",
    ]
    subprocess.run(command, env={**os.environ, **variables, **operator}, check=True, stdout=subprocess.DEVNULL)
    page.get(f"{root}/admin/")
    for field, text in {"username": "operator", "password": password}.items():
        page.find_element("name", field).send_keys(text)
    page.find_element("css selector", "[type=submit]").click()
    wait_for(page, "document.querySelector('#board')")
    found = {"board": f"{root}/admin/"}
    for name, listed in {"admin-queue": "userqueue/", "admin-request": "request/?status=failed"}.items():
        page.get(f"{root}/admin/queues/{listed}")
        found[name] = str(page.find_element("css selector", "#result_list tbody th a").get_attribute("href"))
    return found


def wait_for(page: "WebDriver", expression: str) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while not page.execute_script(f"return {expression}"):
        if time.monotonic() > deadline:
            raise SetupError(f"The page did not become what the picture shows: {expression}")
        time.sleep(0.1)


def take(page: "WebDriver", path: Path, width: int, height: int, dark: bool) -> int:
    """Takes one picture; its bytes."""
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
    drawn = "requestAnimationFrame(() => requestAnimationFrame(arguments[0]))"
    page.execute_async_script(
        f"document.querySelectorAll('.new').forEach((form) => (form.open = innerWidth > 900)); scrollTo(0, 0); {drawn}"
    )
    shot = page.execute_cdp_cmd("Page.captureScreenshot", {"format": "webp", "quality": 80})
    path.parent.mkdir(exist_ok=True)
    return path.write_bytes(base64.b64decode(shot["data"]))
