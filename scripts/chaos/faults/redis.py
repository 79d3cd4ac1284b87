"""Faults of Redis: restarted, emptied, frozen."""

from collections.abc import Iterator

from scripts.chaos.fault import Place, fault
from scripts.servers import redis


@fault("redis.restart", 0.2, 2)
def restart_redis(place: Place) -> Iterator[None]:
    place.stack.redis.kill()
    yield
    place.stack.start_again(place.stack.redis)


@fault("redis.flush")
def flush_redis(place: Place) -> Iterator[None]:
    with redis.connect(place.stack.redis.url) as client:
        client.flushall()
    yield


@fault("redis.freeze", 0.5, 2)
def freeze_redis(place: Place) -> Iterator[None]:
    """SIGSTOP: its connections stay, nobody answers."""
    place.stack.redis.pause()
    yield
    place.stack.redis.resume()
