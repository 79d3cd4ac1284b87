"""What the declaration of a handler must be like. Each check says what is wrong, as a sentence, or None."""

import inspect
import re
from collections.abc import Sequence
from math import isfinite
from typing import Any

from django.apps import AppConfig, apps
from django.contrib.auth import get_permission_codename
from django.core.checks import Warning as CheckWarning
from django.core.checks import register
from pydantic import BaseModel

from queues import kinds
from queues.states import OnFailure

LONG_SECONDS = 60  # of an atomic kind; the default, and the alert LongTransaction, have it too


def wrong_about(
    name: Any, version: Any, schema: Any, max_attempts: Any, on_failure: Any, atomic: Any, description: Any
) -> str | None:
    """What does not fit of its arguments, as a sentence."""
    if not isinstance(name, str) or not re.fullmatch(r"[!-~]{1,100}", name):
        return f"{name!r} is no name: write up to 100 letters, digits, dots, as in 'report.build'."
    for what, number in (("version", version), ("max_attempts", max_attempts)):
        if type(number) is not int or not 1 <= number < 2**31:
            return f"{name!r} has {what}={number!r}: write a whole number from 1."
    if schema is not None and not (isinstance(schema, type) and issubclass(schema, BaseModel)):
        return f"{name!r} has schema={schema!r}: write a class made from pydantic.BaseModel."
    if on_failure not in OnFailure.values:
        return f"{name!r} has on_failure={on_failure!r}: write {' or '.join(map(repr, OnFailure.values))}."
    if type(atomic) is not bool:
        return f"{name!r} has atomic={atomic!r}: write True or False."
    if not isinstance(description, str):
        return f"{name!r} has description={description!r}: write a text."
    return None


def wrong_seconds(name: str, time_limit: Any, backoff: Any, backoff_cap: Any) -> str | None:
    """What does not fit of its times, as a sentence."""
    given = {"time_limit": time_limit, "backoff": backoff, "backoff_cap": backoff_cap}
    for what, seconds in given.items():
        if type(seconds) not in (int, float) or not isfinite(seconds):
            return f"{name!r} has {what}={seconds!r}: write a number of seconds."
    if time_limit <= 0 or not 0 <= backoff <= backoff_cap:
        told = ", ".join(f"{what}={seconds!r}" for what, seconds in given.items())
        return f"{name!r} has {told}: time_limit is above 0, and 0 <= backoff <= backoff_cap."
    return None


def wrong_permission(name: str, permission: Any) -> str | None:
    """What does not fit of who may ask for it. A permission that nobody can be given would be asked for in vain."""
    if permission is None:
        return None
    if isinstance(permission, str) and re.fullmatch(r"\w+\.[^.]+", permission):
        if not apps.models_ready or permission in _permissions_of(permission.partition(".")[0]):
            return None
        told = "no model of an installed app has it. Write one that there is, or a function that takes the user."
        return f"{name!r} has permission={permission!r}: {told}"
    try:
        inspect.signature(permission).bind(None)
    except (TypeError, ValueError):
        told = "write a permission such as 'reports.add_report', or a function that takes the user."
        return f"{name!r} has permission={permission!r}: {told}"
    return None


def _permissions_of(label: str) -> set[str]:
    """The permissions of an app's models, as app.codename; they may not be in the database yet."""
    models = [model._meta for model in apps.get_models() if model._meta.app_label == label]
    usual = [get_permission_codename(action, about) for about in models for action in about.default_permissions]
    own = [codename for about in models for codename, _ in about.permissions]
    return {f"{label}.{codename}" for codename in usual + own}


def wrong_with(function: Any, atomic: bool) -> str | None:
    """What does not fit of the function, as a sentence."""
    if not callable(function):
        return f"{function!r} is no function."
    written = inspect.unwrap(function)
    called = f"{getattr(written, '__name__', written)!s}"
    if inspect.isgeneratorfunction(written) or inspect.isasyncgenfunction(written):
        return f"{called} yields. A handler is no generator: return its result."
    if atomic and any(map(inspect.iscoroutinefunction, (written, type(written).__call__))):
        return f"{called} is async and atomic: no transaction spans an await. Write def, or leave atomic out."
    try:
        inspect.signature(function).bind(None, None)
    except TypeError:
        taken = f"{called}{inspect.signature(function)}"
        return f"{taken} cannot be called with (request, payload), which every handler is given."
    return None


@register
def long_transactions(app_configs: Sequence[AppConfig] | None, **_: Any) -> list[CheckWarning]:
    """A warning, at start and in `manage.py check`, for each atomic kind whose attempts may be that long."""
    return [
        CheckWarning(
            f"{kind.name!r} version {kind.version} is atomic and has time_limit={kind.time_limit:g}: every user's"
            " requests get slower while its transaction is open.",
            hint=f"Write a time_limit of at most {LONG_SECONDS}, or do what takes long in another request before it.",
            id="processing.W001",
        )
        for kind in kinds.all_kinds()
        if kind.atomic and kind.time_limit > LONG_SECONDS
    ]
