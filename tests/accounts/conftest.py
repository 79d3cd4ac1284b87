import pytest

from accounts.models import User
from tests.accounts.people import Api, make_user


@pytest.fixture(autouse=True)
def _without_waiting(quick_hashes: None, no_limit_reached: None) -> None:
    """Neither hashes nor limits are what these tests wait for."""


@pytest.fixture
def user(db: None) -> User:
    return make_user()


@pytest.fixture
def api(user: User) -> Api:
    return Api.of(user)


@pytest.fixture
def anyone(db: None) -> Api:
    return Api()
