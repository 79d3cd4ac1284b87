from django.apps import AppConfig


class WebhooksConfig(AppConfig):
    name = "processing.webhooks"

    def ready(self) -> None:
        from processing.webhooks import examples, exporting  # noqa: F401  (examples: what the documentation shows)
        from project.rest.pages import PLACES
        from queues.operations.export import others

        others.append(exporting.records)
        PLACES["webhooks"] = "/api/v1/webhooks"
