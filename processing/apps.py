from fnmatch import fnmatchcase
from importlib import import_module

from django.apps import AppConfig, apps
from django.conf import settings
from django.utils.module_loading import module_has_submodule


class ProcessingConfig(AppConfig):
    name = "processing"

    def ready(self) -> None:
        """Find every installed app's handlers.py: the API must know the kinds, the worker the functions.

        Raises WrongHandler when one does not fit, an app of EXTRA_APPS has none, or no kind is what KINDS names.
        """
        from processing import handlers, health
        from project.telemetry.health import register
        from queues import kinds

        register("rabbitmq", check=health.rabbitmq)
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
        names = sorted({kind.name for kind in kinds.all_kinds()})
        for pattern in settings.KINDS:
            if not any(fnmatchcase(name, pattern) for name in names):
                raise handlers.WrongHandler(
                    f"KINDS={settings.ENV.kinds!r}: no kind fits {pattern!r}. There is {', '.join(names) or 'none'}."
                )
