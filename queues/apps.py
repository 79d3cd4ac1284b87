from django.apps import AppConfig
from django.conf import settings


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

        if settings.ENV.tracing:
            from project.telemetry import spans

            spans.start()
        health.register("dispatcher", "workers", "queues", look=check, in_database=True)
        metrics.register(figures, before=begin_at_zero)
        register_board(dashboard.board, permission="queues.view_userqueue")
