"""Fixtures for the tests of handlers: `pytest -p processing.testing.plugin`, beside pytest-django.

`./run test yourapp` names it by itself, and brings the servers.
"""

import itertools
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from accounts.models import User
    from processing.testing import Ran
    from queues.from_python import Submitted

# Here, because pytest-django reads it before any fixture is asked for.
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")
os.environ.setdefault("DEBUG", "1")

_numbers = itertools.count(1)


@pytest.fixture
def queue_user(transactional_db: None) -> "User":
    """A user with an empty queue."""
    from accounts.models import User

    return User.objects.create_user(f"queue-user-{next(_numbers)}")


@pytest.fixture
def submit(queue_user: "User") -> "Callable[..., Submitted]":
    """`submit("report.build", payload, ..)`: a request of `queue_user`, as `queues.submit` takes it."""
    from queues import from_python

    def submit(kind: str, payload: Any = None, **options: Any) -> "Submitted":
        return from_python.submit(queue_user, kind, payload, **options)

    return submit


@pytest.fixture
def drain(queue_user: "User") -> "Callable[..., list[Ran]]":
    """`drain()`: what waits in the queue of `queue_user` is run to its end, as `processing.testing.drain` does."""
    from processing import testing

    def drain(**options: Any) -> "list[Ran]":
        return testing.drain(queue_user, **options)

    return drain


@pytest.fixture
def run_handler() -> "Callable[..., Ran]":
    """`run_handler("report.build", payload, ..)`: one attempt, as `processing.testing.run` calls it."""
    from processing import testing

    return testing.run
