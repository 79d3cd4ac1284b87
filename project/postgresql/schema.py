"""How migrations change the schema: Django's way, and an index that is made while others write waits for them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.db.backends.postgresql import schema


class DatabaseSchemaEditor(schema.DatabaseSchemaEditor):
    """What is made or removed concurrently waits for whoever reads or writes, and stops nobody meanwhile. If the limit
    of a lock interrupted it, an invalid index would be left.
    """

    connection: Any

    def add_index(self, model: Any, index: Any, concurrently: bool = False) -> None:
        with self._patience(concurrently):
            super().add_index(model, index, concurrently)

    def remove_index(self, model: Any, index: Any, concurrently: bool = False) -> None:
        with self._patience(concurrently):
            super().remove_index(model, index, concurrently)

    @contextmanager
    def _patience(self, concurrently: bool) -> Iterator[None]:
        before = self.connection.wanted
        if concurrently:
            self.connection.wanted = before._replace(lock=before.statement)
        try:
            yield
        finally:
            self.connection.wanted = before
