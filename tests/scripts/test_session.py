"""What every test stands on."""

import pytest
from django.db import connection

from scripts.servers import rabbitmq, redis
from tests.conftest import SERVERS


@pytest.mark.django_db
def test_the_session_has_its_own_database_under_the_name_the_environment_says() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_database()")
        (name,) = cursor.fetchone()
    assert SERVERS.database_url.endswith(f"/{name}")
    assert name.startswith("ordered_work_test_")


def test_the_session_has_its_own_virtual_host_and_redis_number() -> None:
    assert rabbitmq.reach(SERVERS.rabbitmq_url) is None
    assert SERVERS.queue_prefix or "ordered_work_test_" in SERVERS.rabbitmq_url
    assert redis.reach(SERVERS.redis_url) is None
    assert not SERVERS.redis_url.endswith("/0")
