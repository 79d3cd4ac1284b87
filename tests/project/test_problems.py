"""Every error is a problem with the request's id, whoever makes it; none shows what is inside."""

from typing import Any

import pytest
from django.core.exceptions import BadRequest, PermissionDenied, RequestDataTooBig, SuspiciousOperation
from django.db import DataError, InterfaceError, OperationalError, connection
from django.http import Http404, HttpResponse, HttpResponseNotAllowed, UnreadablePostError
from django.urls import path
from rest_framework import exceptions, serializers
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.models import Session
from project import urls
from project.rest.exception_handler import field_errors
from project.rest.problems import (
    Conflict,
    FieldError,
    Invalid,
    NotFound,
    Problem,
    ServiceUnavailable,
    TooManyRequests,
    Unprocessable,
)
from project.rest.views import StrictView
from tests.accounts.people import Api, make_user, named

ERRORS: dict[str, tuple[BaseException, int]] = {
    "problem": (Problem("Because."), 400),
    "invalid": (Invalid(FieldError("a.b", "wrong", "It is wrong.")), 400),
    "drf-invalid": (serializers.ValidationError({"a": ["It is wrong."]}), 400),
    "bad-request": (BadRequest("secret"), 400),
    "suspicious": (SuspiciousOperation("secret"), 400),
    "broken-off": (UnreadablePostError("secret"), 400),
    "drf-parse": (exceptions.ParseError("It is broken."), 400),
    "denied": (PermissionDenied("secret"), 403),
    "drf-denied": (exceptions.PermissionDenied(), 403),
    "http404": (Http404("secret"), 404),
    "not-found": (NotFound(), 404),
    "conflict": (Conflict("It is final."), 409),
    "too-big": (RequestDataTooBig("secret"), 413),
    "unprocessable": (Unprocessable(), 422),
    "too-many": (TooManyRequests(retry_after=7), 429),
    "crash": (RuntimeError("secret"), 500),
    "bad-data": (DataError("secret"), 500),
    "unavailable": (ServiceUnavailable(retry_after=3), 503),
    "database-away": (OperationalError("secret"), 503),
    "connection-lost": (InterfaceError("secret"), 503),
}


def plain_view(request: Any, name: str) -> HttpResponse:
    raise ERRORS[name][0]


class ApiView(StrictView):
    authentication_classes = ()
    permission_classes = ()

    def get(self, request: Request, name: str) -> Response:
        raise ERRORS[name][0]


def bare(request: Any, status: int) -> HttpResponse:
    if status == 405:
        return HttpResponseNotAllowed(["GET"])
    return HttpResponse("<h1>secret</h1>", status=status)


@pytest.fixture
def api(settings: Any) -> Api:
    """The project's own paths and three that fail."""
    settings.ROOT_URLCONF = __name__
    return Api()


urlpatterns = [
    *urls.urlpatterns,
    path("test/plain/<name>", plain_view),
    path("test/api/<name>", ApiView.as_view()),
    path("test/bare/<int:status>", bare),
]


def check_problem(answer: Any, status: int) -> dict[str, Any]:
    body: dict[str, Any] = answer.json()
    assert (answer.status_code, body["status"]) == (status, status)
    assert answer["Content-Type"] == "application/problem+json"
    assert set(body) - {"errors"} == {"type", "title", "status", "detail", "request_id"}
    assert body["type"].startswith("/problems/")
    assert body["request_id"] == answer["X-Request-ID"]
    assert "secret" not in answer.content.decode()
    assert "Traceback" not in answer.content.decode()
    if status in (429, 503):
        assert int(answer["Retry-After"]) > 0
    return body


@pytest.mark.parametrize("debug", [True, False])
@pytest.mark.parametrize("kind", ["plain", "api"])
@pytest.mark.parametrize("name", ERRORS)
def test_whatever_is_raised_leaves_as_a_problem(api: Api, settings: Any, kind: str, name: str, debug: bool) -> None:
    settings.DEBUG = debug
    check_problem(api.get(f"/test/{kind}/{name}"), ERRORS[name][1])


@pytest.mark.parametrize("status", [400, 403, 404, 405, 413, 418, 500, 502, 503])
def test_an_error_page_of_others_becomes_a_problem(api: Api, status: int) -> None:
    answer = api.get(f"/test/bare/{status}")
    if status == 503:
        answer.headers.setdefault("Retry-After", "1")
    check_problem(answer, status)
    assert answer.get("Allow") == ("GET" if status == 405 else None)


@pytest.mark.parametrize("debug", [True, False])
def test_django_s_own_refusals_are_problems(api: Api, settings: Any, debug: bool, db: None) -> None:
    settings.DEBUG = debug
    check_problem(api.get("/nowhere"), 404)
    check_problem(api.get("/api/v1/nowhere?x=1"), 404)
    check_problem(api.get("/api/v1/auth/me", HTTP_HOST="evil.example"), 400)
    check_problem(api.get("/api/v1/auth/me", HTTP_HOST="a b"), 400)
    check_problem(api.post("/health/live"), 405)
    check_problem(api.get("/static/nowhere.js"), 404)
    check_problem(api.get("/api/v1/auth/me/"), 404)


BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/webp,*/*;q=0.8"


@pytest.mark.parametrize("path", ["/nowhere", "/problems/nothing"])
def test_a_person_whose_address_leads_nowhere_sees_a_page(api: Api, path: str, db: None) -> None:
    seen = api.get(path, HTTP_ACCEPT=BROWSER)
    assert seen.status_code == 404
    assert seen["Content-Type"].startswith("text/html")
    assert seen["Vary"] == "Accept"
    assert '<a href="/api/docs">' in seen.content.decode()
    check_problem(api.get(path, HTTP_ACCEPT="*/*"), 404)
    check_problem(api.get("/api/v1/nowhere", HTTP_ACCEPT=BROWSER), 404)


def test_a_method_that_is_not_served_is_405_with_allow(api: Api) -> None:
    for method in ("GET", "OPTIONS", "TRACE", "PUT", "NONSENSE"):
        answer = api.send(method, "auth/token", None)
        check_problem(answer, 405)
        assert answer["Allow"] == "POST"


def test_an_error_keeps_its_fields(api: Api) -> None:
    assert named(api.get("/test/api/invalid")) == [("a.b", "wrong")]
    assert named(api.get("/test/api/drf-invalid")) == [("a", "invalid")]


def test_security_headers_stay_on_errors(api: Api) -> None:
    for where in ("/nowhere", "/test/plain/crash", "/test/bare/500"):
        assert api.get(where)["X-Content-Type-Options"] == "nosniff"


@pytest.mark.django_db(transaction=True)
def test_a_database_that_is_away_is_503(api: Api) -> None:
    tokens = Session.open(make_user())
    port = connection.settings_dict["PORT"]
    connection.close()
    connection.settings_dict["PORT"] = 1
    try:
        check_problem(api.post("auth/token", {"username": "x", "password": "y"}), 503)
        check_problem(Api(tokens).get("auth/me"), 503)
    finally:
        connection.close()
        connection.settings_dict["PORT"] = port
    assert Api(tokens).get("auth/me").status_code == 200


@pytest.mark.parametrize("path", ["/admin/nowhere/", "/admin/login/"])
def test_admin_pages_stay_html(api: Api, path: str, db: None) -> None:
    assert not api.get(path).get("Content-Type", "text/html").startswith("application")


def test_nested_errors_are_flat_with_dotted_paths() -> None:
    class Inner(serializers.Serializer[Any]):
        n = serializers.IntegerField()

    class Outer(serializers.Serializer[Any]):
        items = Inner(many=True)
        tags = serializers.ListField(child=serializers.CharField(max_length=1))
        message = serializers.IntegerField()
        code = serializers.IntegerField()

    outer = Outer(data={"items": [{"n": 1}, {"n": "x"}, {}], "tags": ["a", "bb"], "message": "x", "code": "y"})
    with pytest.raises(serializers.ValidationError) as caught:
        outer.is_valid(raise_exception=True)
    assert [(e.field, e.code) for e in field_errors(caught.value.get_full_details())] == [
        ("items.1.n", "invalid"),
        ("items.2.n", "required"),
        ("tags.1", "max_length"),
        ("message", "invalid"),
        ("code", "invalid"),
    ]
