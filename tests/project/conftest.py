from collections.abc import Iterator

import pytest
import redis
from django.conf import settings

from project import redis as redis_client


@pytest.fixture(autouse=True)
def no_limit_reached() -> Iterator[None]:
    """Every test starts with nothing counted, and with Redis believed to be there."""
    with redis.Redis.from_url(settings.ENV.redis_url) as client:
        for key in client.scan_iter(redis_client.own(f"{settings.ENV.queue_prefix}limit:*")):
            client.delete(key)
    redis_client._breaker.closed = True
    yield
    redis_client._breaker.closed = True
