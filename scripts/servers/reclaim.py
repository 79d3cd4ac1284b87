"""Places on servers whose working copy is gone: their database, virtual host and Redis number are given back."""

import psycopg

from scripts.servers import postgresql, rabbitmq, redis
from scripts.servers.found import Found
from scripts.servers.marks import Mark


def reclaim(found: list[Found]) -> list[str]:
    """Gives back what is marked for a folder of this machine that is gone and that nobody is connected to; says what.

    `found` are the three servers. Whose folder is on another machine, or on this one, is left alone.
    """
    database, broker, cache = found
    numbers = {number: mark for number, mark in redis.numbers(cache.url) if isinstance(mark, Mark) and mark.abandoned()}
    in_use = redis.numbers_in_use(cache.url) if numbers else set()
    busy = {numbers[number].name for number in numbers if number in in_use}
    try:
        marks = {mark.name: mark for mark in postgresql.marks(database.url) if mark.abandoned()}
    except psycopg.Error:
        marks = {}
    marks |= {mark.name: mark for mark in numbers.values()}
    said = []
    for name, mark in sorted(marks.items()):
        if (
            name in busy
            or not name.startswith("ordered_work_")
            or not postgresql.drop_unused_database(database.url, name)
        ):
            continue
        rabbitmq.drop_vhost(rabbitmq.with_vhost(broker.url, name), broker.control)
        if shared := redis.shared_before(cache.url, mark):
            redis.give_back(*shared)
        for number in (number for number, of in numbers.items() if of.name == name):
            redis.give_back(redis.with_number(cache.url, number))
        said.append(f"gave back the database, virtual host and Redis number {name}: {mark.folder} is gone")
    return said
