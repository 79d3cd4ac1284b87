from django.apps import AppConfig


class WebhooksConfig(AppConfig):
    name = "processing.webhooks"

    def ready(self) -> None:
        from project.rest.pages import PLACES

        PLACES["webhooks"] = "/api/v1/webhooks"
