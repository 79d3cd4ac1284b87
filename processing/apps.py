from django.apps import AppConfig
from django.utils.module_loading import autodiscover_modules


class ProcessingConfig(AppConfig):
    name = "processing"

    def ready(self) -> None:
        """Find every installed app's handlers.py: the API must know the kinds, the worker the functions."""
        autodiscover_modules("handlers")
