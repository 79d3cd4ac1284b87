"""The live page: one document, which scripts fill by the public HTTP API. It is the same for everybody.

Each file's address ends in the hash of its content, so that after an upgrade no browser runs old modules beside new
ones. Modules name each other without it; an import map says what they mean. That map is the one thing inline, and the
policy names its hash.
"""

import base64
import hashlib
from functools import cache
from pathlib import Path
from typing import Any

import orjson
from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.templatetags.static import static
from django.utils.safestring import mark_safe
from django.views.decorators.http import require_safe

ON_DEMAND = {"account_view.js", "own_data.js", "webhooks_view.js"}  # loaded when somebody goes there
FOLDER = Path(__file__).parent / "static" / "page"
POLICY = (
    "default-src 'none'; script-src 'self' 'sha256-{map}'; style-src 'self'; img-src 'self'; connect-src 'self';"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
)


@require_safe
def live(request: HttpRequest) -> HttpResponse:
    """The live page; without scripts what this is, and where docs and admin are."""
    response = render(request, "page/page.html", files() | {"registration": settings.ENV.registration})
    response["Content-Security-Policy"] = POLICY.format(map=files()["map_hash"])
    response["Cache-Control"] = "no-cache"
    return response


@cache
def files() -> dict[str, Any]:
    """The addresses of the page's files, and the import map with its hash. Made once a process."""
    modules = sorted(path.name for path in FOLDER.glob("*.js") if path.name != "boot.js")
    text = orjson.dumps({"imports": {static(f"page/{name}"): address(name) for name in modules}}).decode()
    return {
        "style": address("page.css"),
        "boot": address("boot.js"),
        "app": address("app.js"),
        "modules": [address(name) for name in modules if name != "app.js" and name not in ON_DEMAND],
        "import_map": mark_safe(text),  # noqa: S308  (made of our files' names)
        "map_hash": base64.b64encode(hashlib.sha256(text.encode()).digest()).decode(),
    }


def address(name: str) -> str:
    content = (FOLDER / name).read_bytes()
    return f"{static(f'page/{name}')}?v={hashlib.sha256(content).hexdigest()[:12]}"
