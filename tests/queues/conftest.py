"""A database that is emptied quickly, and somebody who calls the API."""

import pytest

from tests.processing.conftest import _empty_by_delete  # noqa: F401
from tests.queues.api import Caller


@pytest.fixture
def alice() -> Caller:
    return Caller()
