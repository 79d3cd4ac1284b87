"""An ASGI application asked from a thread, as WSGI applications are."""

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

from django.core.wsgi import get_wsgi_application
from django.db import connection

from project.web.threads import InThreads

SPELLED = {  # where it is not as titles are
    name.title(): name for name in ("ETag", "RateLimit", "RateLimit-Policy", "WWW-Authenticate", "X-Request-ID")
}

WSGI = Callable[[dict[str, Any], Any], Iterable[bytes]]


def scope_of(environ: dict[str, Any]) -> dict[str, Any]:
    """The scope that a server makes of what came as this environ."""
    headers = [
        (name.removeprefix("HTTP_").lower().replace("_", "-").encode(), str(value).encode("latin-1"))
        for name, value in environ.items()
        if value and (name.startswith("HTTP_") or name in ("CONTENT_TYPE", "CONTENT_LENGTH"))
    ]
    return {
        "type": "http",
        "http_version": "1.1",
        "method": environ["REQUEST_METHOD"],
        "scheme": environ.get("wsgi.url_scheme", "http"),
        "path": environ["PATH_INFO"].encode("latin-1").decode(),
        "query_string": environ.get("QUERY_STRING", "").encode("latin-1"),
        "root_path": environ.get("SCRIPT_NAME", ""),
        "server": (environ.get("SERVER_NAME", "localhost"), int(environ.get("SERVER_PORT", 80))),
        "client": (environ.get("REMOTE_ADDR", "127.0.0.1"), 4711),
        "headers": headers,
    }


def as_wsgi(application: Any) -> WSGI:
    """Each request on an event loop of its own, in the thread that asks."""

    def ask(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        return asyncio.run(_ask(application, environ, start_response))

    return ask


async def _ask(application: Any, environ: dict[str, Any], start_response: Any) -> list[bytes]:
    body = [environ["wsgi.input"]]
    parts: list[bytes] = []

    async def receive() -> dict[str, Any]:
        if not body:
            await asyncio.sleep(3600)
        return {"type": "http.request", "body": body.pop().read(), "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            named = [(name.decode().title(), value.decode()) for name, value in message["headers"]]
            start_response(f"{message['status']} ", [(SPELLED.get(name, name), value) for name, value in named])
        else:
            parts.append(message.get("body", b""))

    await application(scope_of(environ), receive, send)
    return parts


def in_threads(count: int) -> InThreads:
    """Django in threads that keep no connection to the database of a test."""
    django = get_wsgi_application()

    def closing(environ: dict[str, Any], start_response: Any) -> Any:
        try:
            return django(environ, start_response)
        finally:
            connection.close()

    return InThreads(closing, count, "django")
