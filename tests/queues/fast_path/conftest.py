"""The fast path before Django, and what each of them was asked."""

import io
import json
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connection

from accounts.models import Session, User
from queues.api.fast_path import FastPath
from tests.asgi import as_wsgi, in_threads
from tests.queues.rows import with_queues

BODY = {"kind": "demo.echo", "payload": {"n": 1.50, "text": "ü"}}


class Answer:
    def __init__(self, status: str, headers: list[tuple[str, str]], body: bytes) -> None:
        self.status, self.headers, self.body = int(status[:3]), dict(headers), body
        self.json = json.loads(body) if body else None
        assert len(self.headers) == len(headers), f"a header twice: {headers}"
        assert int(self.headers["Content-Length"]) == len(body)


class Recorded:
    """Django, and how many requests came as far as there."""

    def __init__(self) -> None:
        self.django = in_threads(2)
        self.asked = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.asked += 1
        await self.django(scope, receive, send)

    async def run(self, do: Any, *values: Any) -> Any:
        def closing() -> Any:
            try:
                return do(*values)
            finally:
                connection.close()

        return await self.django.run(closing)


def call(application: Any, token: str | None, body: Any = BODY, **environ: Any) -> Answer:
    """What an application answers to a submission, with `environ` beside or instead of the usual."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    asked = {
        "REQUEST_METHOD": "POST", "PATH_INFO": "/api/v1/requests", "SCRIPT_NAME": "", "QUERY_STRING": "",
        "SERVER_NAME": "localhost", "SERVER_PORT": "80", "SERVER_PROTOCOL": "HTTP/1.1", "HTTP_HOST": "localhost",
        "REMOTE_ADDR": "127.0.0.1", "CONTENT_TYPE": "application/json", "CONTENT_LENGTH": str(len(raw)),
        "HTTP_AUTHORIZATION": f"Bearer {token}", "wsgi.url_scheme": "http", "wsgi.input": io.BytesIO(raw),
        "wsgi.errors": sys.stderr, "wsgi.version": (1, 0), "wsgi.multithread": True, "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }  # fmt: skip
    if token is None:
        del asked["HTTP_AUTHORIZATION"]
    started: list[Any] = []
    response = as_wsgi(application)({**asked, **environ}, lambda status, headers, *_: started.append((status, headers)))
    content = b"".join(response)
    getattr(response, "close", lambda: None)()
    (start,) = started
    return Answer(*start, content)


@pytest.fixture
def django() -> Recorded:
    return Recorded()


@pytest.fixture
def fast(django: Recorded) -> Iterator[FastPath]:
    application = FastPath(django)
    yield application
    application.close()


@pytest.fixture
def user() -> User:
    (user,) = with_queues(1)
    return user


@pytest.fixture
def token(user: User) -> str:
    return Session.open(user).access
