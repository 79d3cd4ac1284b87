from importlib import import_module

from django.apps import AppConfig, apps
from django.conf import settings
from django.utils.module_loading import module_has_submodule


class ProcessingConfig(AppConfig):
    name = "processing"

    def ready(self) -> None:
        """Find every installed app's handlers.py: the API must know the kinds, the worker the functions.

        Raises WrongHandler when one does not fit, or an app of EXTRA_APPS has none.
        """
        from processing import handlers, health
        from project.telemetry.health import register
        from queues import kinds

        register("rabbitmq", look=health.rabbitmq)
        extra = settings.ENV.extra_apps
        for app in apps.get_app_configs():
            before = len(kinds.all_kinds())
            if app.module is not None and module_has_submodule(app.module, "handlers"):
                import_module(f"{app.name}.handlers")
            named = {app.name, f"{type(app).__module__}.{type(app).__qualname__}"}
            if named & {name.strip() for name in extra.split(",")} and not (
                len(kinds.all_kinds()) > before or handlers.declared_by(app.name)
            ):
                raise handlers.WrongHandler(
                    f"EXTRA_APPS={extra!r}: the app {app.name!r} declares no handler. Write them in its handlers.py."
                )
