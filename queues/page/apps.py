from django.apps import AppConfig


class PageConfig(AppConfig):
    """The live page at `/`. It uses the public HTTP API alone: taken out, everything else works."""

    name = "queues.page"
    label = "page"
