from django.apps import AppConfig


class SchedulesConfig(AppConfig):
    """Requests at set times. Without this app in INSTALLED_APPS the rest works as before."""

    name = "processing.schedules"
    label = "schedules"
    api_urls = "processing.schedules.urls"

    def ready(self) -> None:
        from processing.dispatch import duties
        from processing.schedules import examples  # noqa: F401  (what the documentation shows)
        from processing.schedules.due import LOOK_SECONDS, submit_due
        from processing.schedules.models import kinds_in_use, records_of
        from queues.operations.export import others
        from queues.operations.kinds_in_use import sources

        duties.register(duties.Duty("schedules", LOOK_SECONDS, submit_due))
        sources.append(kinds_in_use)
        others.append(records_of)
