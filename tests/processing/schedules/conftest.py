from collections.abc import Iterator

import pytest

from processing.schedules import due
from processing.schedules.models import Schedule


@pytest.fixture
def no_schedules(transactional_db: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """None is left over, and nobody has looked for what is due until now."""
    monkeypatch.setattr(due, "_looked", float("-inf"))
    yield
    Schedule.objects.all().delete()
