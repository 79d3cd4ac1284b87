from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.db import connections
from django.db.models.signals import post_migrate, pre_migrate

from project.postgresql.limits import MIGRATION_LOCK_SECONDS, of_role


class QueuesConfig(AppConfig):
    name = "queues"

    def ready(self) -> None:
        from project.admin.site import register_board
        from project.telemetry import health, metrics
        from queues.admin import dashboard
        from queues.api import examples  # noqa: F401  (what the documentation shows)
        from queues.metrics import begin_at_zero
        from queues.operations.figures import figures
        from queues.operations.health import check

        pre_migrate.connect(wait_briefly_for_tables, sender=self)
        post_migrate.connect(wait_as_usual, sender=self)
        if settings.ENV.tracing:
            from project.telemetry import spans

            spans.start()
        health.register("dispatcher", "workers", "queues", check=check, in_database=True)
        metrics.register(figures, before=begin_at_zero)
        register_board(dashboard.board, permission="queues.view_userqueue")


def wait_briefly_for_tables(using: str, **_: Any) -> None:
    """Have migrations give up soon where a table is in use, beside a backup for instance."""
    connection: Any = connections[using]
    connection.wanted = of_role()._replace(lock=MIGRATION_LOCK_SECONDS)


def wait_as_usual(using: str, **_: Any) -> None:
    """Have what this process does after its migrations wait for locks as its role does."""
    connection: Any = connections[using]
    connection.wanted = of_role()
