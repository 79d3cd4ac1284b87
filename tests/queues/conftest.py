"""Kinds and hands of the tests of `processing`, and somebody who calls the API."""

from collections.abc import Iterator

import pytest

from tests.processing import kinds
from tests.processing.conftest import hand, script, watch, wire  # noqa: F401  (fixtures)
from tests.queues.api import Caller


@pytest.fixture
def alice() -> Caller:
    return Caller()


@pytest.fixture
def declared_kinds(transactional_db: None) -> Iterator[None]:
    """The kinds that the tests of `processing` declare, in a database that commits."""
    with kinds.registered():
        yield
