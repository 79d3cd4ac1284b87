"""Tasks that are kinds of the tests, retried in no time."""

import sys
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import connections
from django.test import override_settings

from accounts.models import User
from processing.coroutines import wait_for
from tests.processing.crew import new_user
from tests.processing.kinds import kept
from tests.processing.tasks import functions

OURS = "processing.tasks.backend.OrderedBackend"
QUICK = {"default": {"BACKEND": OURS, "OPTIONS": {"backoff": 0.02, "backoff_cap": 0.05, "time_limit": 2}}}


@pytest.fixture(autouse=True)
def _tasks() -> Iterator[None]:
    functions.CALLS.clear()
    with override_settings(TASKS=QUICK), kept():
        sys.modules.pop("processing.tasks.handlers", None)
        import_module("processing.tasks.handlers")
        yield
    wait_for(sync_to_async(connections.close_all)())  # those of the event loop


@pytest.fixture
def user(transactional_db: None) -> User:
    return new_user()


def refreshed(result: Any) -> Any:
    result.refresh()
    return result
