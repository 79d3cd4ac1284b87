"""The release before goes on running on the schema that a release's migrations leave: during a rollout it has to."""

import pytest
from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import models
from django.db.migrations import (
    AddField,
    AddIndex,
    DeleteModel,
    RemoveField,
    RenameField,
    RenameModel,
    SeparateDatabaseAndState,
)
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.operations.base import Operation

# The newest migrations before the first rollout: those up to them make indexes of tables that are still small.
FIRST = {"accounts": "0005", "queues": "0009"}
# Migrations that take away what the release before did not use any more, by (app, name).
UNUSED: set[tuple[str, str]] = set()
TAKES_AWAY = (DeleteModel, RemoveField, RenameField, RenameModel)


def stops_the_release_before(operation: Operation) -> bool:
    """It takes away what the code before reads, or adds what that code does not fill."""
    if isinstance(operation, SeparateDatabaseAndState):
        return any(map(stops_the_release_before, operation.database_operations))
    if isinstance(operation, AddField):
        field = operation.field
        fills_itself = isinstance(field, models.GeneratedField) or field.has_db_default()
        return not (field.null or fills_itself or field.many_to_many)
    return isinstance(operation, TAKES_AWAY)


def holds_up_writing(operation: Operation) -> bool:
    """It makes an index of what may be millions of rows, and nobody writes meanwhile."""
    return isinstance(operation, AddIndex) and not isinstance(operation, AddIndexConcurrently)


def test_the_release_before_runs_on_the_new_schema() -> None:
    loaded = MigrationLoader(None).disk_migrations
    ours = {name: one for name, one in loaded.items() if name[0] in FIRST}
    assert len(ours) > 10
    for (app, name), migration in ours.items():
        for operation in migration.operations:
            later = name[:4] > FIRST[app]
            assert not stops_the_release_before(operation) or (app, name) in UNUSED, (name, operation.describe())
            assert not (later and holds_up_writing(operation)), (name, operation.describe())


@pytest.mark.parametrize(
    ("operation", "stops"),
    [
        (AddField("request", "colour", models.TextField()), True),
        (AddField("request", "colour", models.TextField(default="red")), True),  # Django drops it once rows are filled
        (AddField("request", "colour", models.TextField(default="red", db_default="red")), False),
        (AddField("request", "colour", models.TextField(null=True)), False),
        (AddField("user", "friends", models.ManyToManyField("accounts.User")), False),
        (RemoveField("request", "trace"), True),
        (RenameField("request", "trace", "traced"), True),
        (DeleteModel("attempt"), True),
        (SeparateDatabaseAndState([RemoveField("request", "trace")]), True),
        (SeparateDatabaseAndState(state_operations=[RenameField("request", "trace", "traced")]), False),
    ],
)
def test_what_stops_it_is_found(operation: Operation, stops: bool) -> None:
    assert stops_the_release_before(operation) is stops


@pytest.mark.parametrize(("operation", "holds"), [(AddIndex, True), (AddIndexConcurrently, False)])
def test_an_index_that_holds_up_writing_is_found(operation: type[AddIndex], holds: bool) -> None:
    assert holds_up_writing(operation("request", models.Index(fields=["kind"], name="by_kind"))) is holds
