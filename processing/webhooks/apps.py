from django.apps import AppConfig


class WebhooksConfig(AppConfig):
    name = "processing.webhooks"

    def ready(self) -> None:
        from processing.webhooks import examples, exporting, retention  # noqa: F401  (examples: of the documentation)
        from project.rest.pages import PLACES
        from queues.operations import erasure, export

        export.others.append(exporting.records)
        erasure.others.append(retention.remove_of)
        PLACES["webhooks"] = "/api/v1/webhooks"
