"""clients/typescript against the real service: its own tests in Node, and a page of another origin in Chromium."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from accounts.models import User
from scripts.place import ROOT
from tests.processing.clients.conftest import PASSWORD, run_in
from tests.processing.clients.lossy_proxy import lossy_proxy
from tests.processing.streaming import Server

if TYPE_CHECKING:
    from selenium.webdriver.chrome.webdriver import WebDriver

pytestmark = pytest.mark.timeout(300)

IN_A_PAGE = """
const [package_, url, name, password, done] = arguments;
import(package_).then(async ({ Client, NotFound }) => {
  const { access, refresh } = (await Client.login(url, name, password)).tokens;
  const client = new Client(url, { access: "old", refresh });
  const told = [];
  const following = (async () => {
    for await (const event of client.follow()) {
      if (event.type === "request") told.push(event.request.status);
      if (told.at(-1) === "succeeded") return;
    }
  })();
  const result = (await client.run("demo.echo", "from a page", { key: "page-1", timeout: 60000 })).result;
  await following;
  const missing = await client.get("01890000-0000-7000-8000-000000000000").catch((error) => error);
  return { result, told, missing: missing instanceof NotFound, depth: (await client.queue()).depth };
}).then(done, (error) => done({ error: String(error) }));
"""


def test_its_own_tests_pass(typescript: Path, url: str, server: Server, crew: None) -> None:
    users = [f"node-{number}" for number in range(12)]
    for name in users:
        User.objects.create_user(name, password=PASSWORD)
    with lossy_proxy(server.port) as port:
        told = run_in(
            typescript,
            "npm",
            "test",
            ORDERED_WORK_URL=url,
            ORDERED_WORK_LOSSY_URL=f"http://127.0.0.1:{port}",
            ORDERED_WORK_USERS=",".join(users),
        )
    written = (typescript / "test" / "client.test.ts").read_text().count("\ntest(")
    assert f"pass {written}\n" in told


def test_the_types_that_are_kept_are_those_of_the_service(typescript: Path, url: str, tmp_path: Path) -> None:
    run_in(typescript, "node", "scripts/generate.js", f"{url}/api/schema", str(tmp_path / "schema.ts"))
    kept = ROOT / "clients" / "typescript" / "src" / "schema.ts"
    assert (tmp_path / "schema.ts").read_text() == kept.read_text(), "npm run generate -- URL/api/schema writes them"


def test_a_page_of_another_origin_submits_follows_and_renews(
    typescript: Path, url: str, user: User, crew: None, page_port: int, browser: "WebDriver"
) -> None:
    with files_of(typescript, page_port) as origin:
        browser.get(f"{origin}/package.json")
        browser.set_script_timeout(90)
        told: Any = browser.execute_async_script(IN_A_PAGE, f"{origin}/dist/index.js", url, user.username, PASSWORD)
        browser.get("about:blank")
    assert told.pop("told")[-1] == "succeeded", told
    assert told == {"result": "from a page", "missing": True, "depth": 0}


@contextmanager
def files_of(folder: Path, port: int) -> Iterator[str]:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", port), partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.shutdown()
        server.server_close()
