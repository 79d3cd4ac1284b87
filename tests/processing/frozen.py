"""Somebody who has locked rows and does not go on: a frozen API process, an operator's open transaction."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from django.db import connection


@contextmanager
def frozen(statement: str, *values: Any) -> Iterator[None]:
    """The locks of this statement are held until the block ends, by a connection of its own."""
    here = connection.settings_dict
    where = {"host": here["HOST"], "port": here["PORT"] or None, "user": here["USER"], "password": here["PASSWORD"]}
    with psycopg.connect(dbname=here["NAME"], **where) as other:
        other.execute(statement, values)
        yield
        other.rollback()


QUEUE = "SELECT FROM queues_userqueue WHERE id = %s FOR UPDATE"
ITS_REQUESTS = "SELECT FROM queues_request WHERE queue_id = %s FOR UPDATE"
LEADERSHIP = "SELECT FROM queues_leadership FOR UPDATE"
