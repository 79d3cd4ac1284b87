"""A logged-in user of the API, for tests: the whole way through middleware and views, without a socket."""

import itertools
import json
import re
import threading
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from drf_spectacular.generators import SchemaGenerator

from accounts.models import Session, User
from tests.client import Client

_numbers = itertools.count(1)
_one_reads = threading.Lock()


def documented() -> list[tuple[re.Pattern[str], dict[str, Any]]]:
    """The routes of the OpenAPI document: what a path must match, and its operations."""
    with _one_reads:  # the generator is not made for threads that begin together
        return _routes()


@cache
def _routes() -> list[tuple[re.Pattern[str], dict[str, Any]]]:
    paths = SchemaGenerator().get_schema(request=None, public=True)["paths"]
    return [(re.compile(re.sub(r"{\w+}", "[^/]+", path)), methods) for path, methods in paths.items()]


def check_documented(method: str, path: str, status: int, content_type: str) -> None:
    """Every answer that a test provokes is one that the OpenAPI document names."""
    for pattern, operations in sorted(documented(), key=lambda route: "[^/]+" in route[0].pattern):
        if pattern.fullmatch(path) and method.lower() in operations:
            answers = operations[method.lower()]["responses"]
            assert str(status) in answers, f"{method} {path} answered {status}, which is not documented"
            assert not content_type or content_type in answers[str(status)]["content"]
            return


def ahead(**span: float) -> str:
    """The time that comes after this span, as a body of the API names it."""
    return (datetime.now(UTC) + timedelta(**span)).isoformat()


class Answer:
    def __init__(self, response: Any) -> None:
        self.status: int = response.status_code
        self.headers = response.headers
        self.content: bytes = response.content
        self.json: Any = json.loads(self.content) if self.content else None

    @property
    def errors(self) -> dict[str, str]:
        """field -> code of a 400."""
        return {error["field"]: error["code"] for error in self.json["errors"]}


class Caller:
    """Speaks as one user, in one session."""

    def __init__(self, user: User | None = None, token: str | None = None) -> None:
        self.user = user or User.objects.create_user(f"caller-{next(_numbers)}")
        self.token = token or Session.open(self.user).access
        self.client = Client(raise_request_exception=False)

    def get(self, path: str, **headers: str) -> Answer:
        return self.send("GET", path, None, **headers)

    def post(self, path: str, body: Any = None, **headers: str) -> Answer:
        return self.send("POST", path, body, **headers)

    def send(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """`body`: bytes as they are, anything else as JSON. Headers with _ for -."""
        sent: dict[str, Any] = {}
        if body is not None:
            content = body if isinstance(body, bytes) else json.dumps(body).encode()
            sent = {"data": content, "content_type": "application/json"}
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if self.token:
            named.setdefault("Authorization", f"Bearer {self.token}")
        answer = Answer(self.client.generic(method, f"/api/v1/{path}", headers=named, **sent))
        check_documented(
            method, f"/api/v1/{path.partition('?')[0]}", answer.status, answer.headers.get("Content-Type", "")
        )
        return answer

    def submit(self, payload: Any = None, kind: str = "demo.echo", **fields: Any) -> Any:
        """A request that is accepted; as the API shows it."""
        answer = self.post("requests", {"kind": kind, "payload": payload, **fields})
        assert answer.status == 202, answer.content
        return answer.json
