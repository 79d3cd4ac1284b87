from django.apps import AppConfig


class TasksConfig(AppConfig):
    """Django's tasks (the package django-tasks) run in their users' order. EXTRA_APPS=processing.tasks turns it on."""

    name = "processing.tasks"
    label = "ordered_tasks"

    def ready(self) -> None:
        from django_tasks import checks, signals  # noqa: F401  (they register themselves)
