"""How a process starts: what is wrong with settings or with somebody's own app ends it in one sentence.

manage.py, the API and the events process all begin with `set_up`, so all of them refuse alike.
"""

import gc
import os
import traceback
from importlib.util import find_spec
from pathlib import Path

import django
from django.core.exceptions import ImproperlyConfigured

OURS = Path(__file__).resolve().parent.parent
LIBRARIES = ("site-packages", "dist-packages")


def set_up(set_prefix: bool = True) -> None:
    """Start Django. Raises SystemExit with a sentence, and no traceback, when settings or an app do not fit."""
    gc.disable()  # it would look through all that is imported again and again: an eighth of the time
    try:
        django.setup(set_prefix)
    except ImproperlyConfigured as wrong:
        raise SystemExit(str(wrong)) from None
    except Exception as error:
        where = theirs(error)
        if where is None:
            raise
        raise SystemExit(f"{where}: {''.join(traceback.format_exception_only(error)).strip()}") from None
    finally:
        gc.enable()


def theirs(error: BaseException) -> str | None:
    """The last line of an app of EXTRA_APPS that led to the error, as file:line; None: there is none."""
    folders = [folder for name in os.environ.get("EXTRA_APPS", "").split(",") for folder in _folders(name.strip())]
    if isinstance(error, SyntaxError) and error.filename and _inside(error.filename, folders):
        return place(error.filename, error.lineno or 0)
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if _inside(frame.filename, folders):
            return place(frame.filename, frame.lineno or 0)
    return None


def place(filename: str, line: int) -> str:
    """file:line, the file as seen from the working directory where it lies in it."""
    path = Path(filename)
    if path.is_relative_to(Path.cwd()):
        path = path.relative_to(Path.cwd())
    return f"{path}:{line}"


def extra_apps(names: str) -> list[str]:
    """The apps that EXTRA_APPS names. Raises ImproperlyConfigured when one is no app.

    An app is a package, or a class in a package's apps.py.
    """
    apps = [name.strip() for name in names.split(",") if name.strip()]
    for name in apps:
        parent, _, last = name.rpartition(".")
        if last[:1].isupper() and parent:
            continue  # a class, which Django looks for
        try:
            spec = find_spec(name)
        except ModuleNotFoundError as missing:
            if missing.name is None or not f"{name}.".startswith(f"{missing.name}."):
                raise  # something that the package itself imports
            spec = None
        if spec is None:
            raise ImproperlyConfigured(
                f"EXTRA_APPS={names!r}: there is no package {name!r}. Write the name of the app's folder, and put the "
                "folder that it lies in on PYTHONPATH."
            )
        if spec.submodule_search_locations is None:
            meant = f" Write {parent!r}." if parent else ""
            raise ImproperlyConfigured(f"EXTRA_APPS={names!r}: {name!r} is a module, not an app.{meant}")
    if len(set(apps)) != len(apps):
        raise ImproperlyConfigured(f"EXTRA_APPS={names!r} names an app twice.")
    return apps


def _folders(name: str) -> list[Path]:
    """Where the package lies that the name begins with."""
    spec = find_spec(name.partition(".")[0]) if name else None
    return [Path(folder).resolve() for folder in (spec and spec.submodule_search_locations) or ()]


def _inside(filename: str, folders: list[Path]) -> bool:
    path = Path(filename).resolve()
    if path.is_relative_to(OURS) and not any(folder != OURS and path.is_relative_to(folder) for folder in folders):
        return False
    return any(path.is_relative_to(folder) for folder in folders) and not set(path.parts) & set(LIBRARIES)
