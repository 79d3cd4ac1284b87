"""Users and what they send, for the tests of every app."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import count
from typing import Any

import orjson
from django.contrib.auth.hashers import make_password
from django.db import connections

from accounts.models import Session, Tokens, User
from tests.client import Client

PASSWORD = "four-random-words-here"
NOBODY = Tokens("", "")
_numbers = count(1)


@cache
def hashed() -> str:
    """One hash for all."""
    return make_password(PASSWORD)


def make_user(**fields: Any) -> User:
    fields.setdefault("username", f"user{next(_numbers)}")
    return User.objects.create(**{"password": hashed(), **fields})


class Api:
    """A client without cookies. Answers of status 500 come back as answers."""

    def __init__(self, tokens: Tokens = NOBODY, **environ: Any) -> None:
        self.tokens = tokens
        self.client = Client(raise_request_exception=False, **environ)

    @classmethod
    def of(cls, user: User, **environ: Any) -> "Api":
        return cls(Session.open(user), **environ)

    def get(self, path: str, **extra: Any) -> Any:
        return self.send("GET", path, None, **extra)

    def post(self, path: str, body: Any = None, **extra: Any) -> Any:
        return self.send("POST", path, body, **extra)

    def delete(self, path: str, **extra: Any) -> Any:
        return self.send("DELETE", path, None, **extra)

    def send(self, method: str, path: str, body: Any, **extra: Any) -> Any:
        if self.tokens.access:
            extra.setdefault("HTTP_AUTHORIZATION", f"Bearer {self.tokens.access}")
        data = body if isinstance(body, bytes) else b"" if body is None else orjson.dumps(body)
        extra.setdefault("content_type", "application/json")
        path = path if path.startswith("/") else f"/api/v1/{path}"
        return self.client.generic(method, path, data, **extra)


def at_once(number: int, act: Callable[[int], Any]) -> list[Any]:
    """What `act(0)` .. `act(number - 1)` return, each in its own thread with its own connection."""

    def run(index: int) -> Any:
        try:
            return act(index)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(number) as threads:
        return list(threads.map(run, range(number)))


def named(answer: Any) -> list[tuple[str, str]]:
    """(field, code) of every error in a problem."""
    return [(error["field"], error["code"]) for error in answer.json().get("errors", ())]
