"""Actions of the admin that first say what they do and to what, and ask why."""

from collections.abc import Callable
from functools import wraps
from typing import Any, NamedTuple, Protocol

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse

from project.admin import tokens
from project.admin.base import FastAdmin

NAMED = 20
COUNTED = 10_000
TOO_OLD = "This page was too old, or not yours. Nothing was done."


class Why(forms.Form):
    """What every action asks for."""

    reason = forms.CharField(max_length=300, help_text="Kept in the log, with who does it and what.")


class What(Protocol):
    """An action: its name, a label for it, and what it means."""

    @property
    def name(self) -> str: ...
    @property
    def label(self) -> str: ...
    @property
    def means(self) -> str: ...


class Asked(NamedTuple):
    name: str
    label: str
    means: str


Verb = Callable[[Any, HttpRequest, QuerySet[Any], str], None]
Action = Callable[[Any, HttpRequest, QuerySet[Any]], HttpResponse | None]


def confirmed(
    label: str,
    means: str,
    permission: str,
    *,
    only: Q | None = None,
    most: int | None = None,
    named: Callable[[Any], str] = str,
) -> Callable[[Verb], Action]:
    """An action as Django's admin wants it, of a method that is called with the reason, once for each confirmation.

    `only`: the rows it can be done to. `most`: more are refused, and those that were asked about are done, though
    others may fit by then. `named`: a row as the page names it.
    """

    def action_of(verb: Verb) -> Action:
        @admin.action(description=label, permissions=[permission])
        @wraps(verb)
        def action(page: Any, request: HttpRequest, chosen: QuerySet[Any]) -> HttpResponse | None:
            chosen = chosen if only is None else chosen.filter(only)
            count = chosen.order_by()[: (most or COUNTED) + 1].count()
            if not count:
                page.message_user(request, "There is nothing that this could be done to.", messages.WARNING)
                return None
            if most and count > most:
                told = f"Nothing was done: select at most {most} at once, by the filters or the search."
                page.message_user(request, told, messages.ERROR)
                return None
            form = Why(request.POST if "confirmed" in request.POST else None)
            if form.is_valid():
                if problem := _unusable(page, request, verb.__name__):
                    page.message_user(request, problem, messages.ERROR)
                else:
                    verb(page, request, chosen, form.cleaned_data["reason"])
                return None
            shown = [named(row) for row in chosen[:NAMED]]
            context = {"named": shown, "left_out": count - len(shown), "form": form}
            context["confirmed"] = tokens.issue(page, request, verb.__name__)
            if most:
                context |= {"selected": list(chosen.values_list("pk", flat=True)), "select_across": False}
            return confirmation(page, request, Asked(verb.__name__, label, means), "admin/confirmation.html", context)

        return action

    return action_of


def _unusable(page: FastAdmin, request: HttpRequest, action: str) -> str:
    """Why this confirmation does nothing; empty: it is spent now, and does."""
    token = tokens.read(page, request, action)
    if token is None:
        return TOO_OLD
    return "" if tokens.spend(request, token) else "This was confirmed before, and is done only once."


def confirmation(
    page: FastAdmin, request: HttpRequest, what: What, template: str, context: dict[str, Any]
) -> TemplateResponse:
    """The page that asks, with what was chosen on the one before."""
    shared = {
        **page.admin_site.each_context(request),
        "title": what.label,
        "what": what,
        "opts": page.opts,
        "media": page.media,
        "selected": request.POST.getlist(ACTION_CHECKBOX_NAME),
        "checkbox": ACTION_CHECKBOX_NAME,
        "select_across": request.POST.get("select_across") == "1",
        "back": request.POST.get("back", ""),
        "away": request.get_full_path(),
    }
    request.current_app = page.admin_site.name  # Django reads it
    return TemplateResponse(request, template, {**shared, **context})
