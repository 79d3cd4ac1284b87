"""Django's test client, quick to make: the middleware is made once for all, not with a look at every static file."""

import threading
from typing import Any

from django.core.signals import setting_changed
from django.test import Client as DjangosClient
from django.test.client import ClientHandler

_lock = threading.Lock()
_handlers: dict[bool, ClientHandler] = {}


class Client(DjangosClient):
    """Knows no settings that are changed without Django's signal, as monkeypatch does, if middleware keeps them."""

    def __init__(self, enforce_csrf_checks: bool = False, **more: Any) -> None:
        super().__init__(enforce_csrf_checks, **more)
        with _lock:
            if enforce_csrf_checks not in _handlers:
                self.handler.load_middleware()
                _handlers[enforce_csrf_checks] = self.handler
            self.handler = _handlers[enforce_csrf_checks]


def _forget(**_: Any) -> None:
    with _lock:
        _handlers.clear()


setting_changed.connect(_forget)
