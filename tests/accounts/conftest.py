import pytest

from accounts.hashers import OrderlyArgon2
from accounts.models import User
from tests.accounts.people import Api, make_user
from tests.project.conftest import no_limit_reached  # noqa: F401


@pytest.fixture(autouse=True)
def quick_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Argon2 with the least it can do: what a hash costs is not what these tests are about."""
    for cost, least in {"time_cost": 1, "memory_cost": 8, "parallelism": 1}.items():
        monkeypatch.setattr(OrderlyArgon2, cost, least)


@pytest.fixture
def user(db: None) -> User:
    return make_user()


@pytest.fixture
def api(user: User) -> Api:
    return Api.of(user)


@pytest.fixture
def anyone(db: None) -> Api:
    return Api()
