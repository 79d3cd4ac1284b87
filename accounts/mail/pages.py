"""The small pages that links in mails lead to. They work without scripts.

GET shows a form and changes nothing: programs that scan mail open links, too. The button does it.
"""

from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.shortcuts import render
from django.views.decorators.debug import sensitive_post_parameters
from rest_framework.exceptions import ValidationError

from accounts.api.serializers import ResetBody, ResetConfirmBody, VerifyBody, check_new_password
from accounts.mail import recovery
from accounts.mail.links import LinkInvalid
from accounts.mail.outbox import Purpose
from project.rest.exception_handler import field_errors
from project.rest.parsers import check_length
from project.rest.problems import Problem
from project.rest.serializers import StrictSerializer

POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Referrer-Policy": "no-referrer",  # the address holds the token
    "Cache-Control": "no-store",
}
Do = Callable[[HttpRequest, dict[str, Any]], str]


def form(template: str, body: type[StrictSerializer], do: Do) -> Callable[[HttpRequest], HttpResponse]:
    """A page with a form: `do` gets what was sent, checked by `body`, and says in a sentence what was done."""

    @sensitive_post_parameters()
    def show(request: HttpRequest) -> HttpResponse:
        if request.method not in ("GET", "HEAD", "POST"):
            return HttpResponseNotAllowed(["GET", "HEAD", "POST"])
        context: dict[str, Any] = {"token": request.GET.get("token", "")[:512]}
        if request.method == "POST":
            check_length(request.META, settings.BODY_LIMIT)  # a thread reads what is longer, however slowly it comes
            sent = {name: value for name, value in request.POST.items() if name in body().fields}
            context["token"] = sent.get("token", "")
            try:
                checked = body(data=sent)
                checked.is_valid(raise_exception=True)
                context["done"] = do(request, dict(checked.validated_data))
            except LinkInvalid as wrong:
                context["gone"] = wrong.errors[0].detail
            except ValidationError as wrong:
                context["errors"] = [error.detail for error in field_errors(wrong.get_full_details())]
            except Problem as wrong:
                context["errors"] = [error.detail for error in wrong.errors] or [str(wrong.detail)]
        return render(request, f"accounts/{template}.html", context)

    return with_headers(show)


def with_headers(view: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    def answer(request: HttpRequest) -> HttpResponse:
        response = view(request)
        for name, value in HEADERS.items():
            response[name] = value
        return response

    return answer


def verify(request: HttpRequest, asked: dict[str, Any]) -> str:
    if "email" in asked:
        recovery.ask(request, Purpose.VERIFY, asked["email"])
        return "If an account has this address and it is not confirmed yet, a mail with a link is on its way to it."
    user = recovery.verify_email(request, asked["token"])
    return f"The address {user.email} is confirmed."


def ask_for_reset(request: HttpRequest, asked: dict[str, Any]) -> str:
    recovery.ask(request, Purpose.RESET, asked["email"])
    return "If an account has this address, a mail with a link is on its way to it."


def reset(request: HttpRequest, asked: dict[str, Any]) -> str:
    user = recovery.user_to_reset(request, asked["token"])
    check_new_password(asked["new_password"], user, "new_password")
    recovery.reset_password(request, user, asked["new_password"])
    return f"{user.username} has a new password, and is logged out everywhere. Log in with the new one."


verify_email = form("verify_email", VerifyBody, verify)
password_reset = form("password_reset", ResetBody, ask_for_reset)
password_reset_confirm = form("password_reset_confirm", ResetConfirmBody, reset)
