"""The base of the API's views: bodies and query parameters are checked by what the view declares."""

from typing import Any, ClassVar

from rest_framework.request import Request
from rest_framework.views import APIView

from project.rest.problems import FieldError, Invalid
from project.rest.serializers import StrictSerializer


class StrictView(APIView):
    """An APIView that refuses query parameters it does not declare.

    `query_serializer` declares them for GET (other methods take none); the checked ones are `self.query`.
    `self.body(request, SomeSerializer)` is the checked body. `body_limit` is its size in bytes, if not the usual.
    """

    http_method_names = ["get", "head", "post", "put", "patch", "delete"]
    query_serializer: ClassVar[type[StrictSerializer] | None] = None
    body_limit: ClassVar[int | None] = None
    query: dict[str, Any]

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        self.query = self.checked_query(request)

    def checked_query(self, request: Request) -> dict[str, Any]:
        given = request.query_params
        serializer = self.query_serializer if request.method in ("GET", "HEAD") else None
        if not given and serializer is None:
            return {}
        errors = []
        known = serializer().fields if serializer else {}
        for name, values in given.lists():
            if name not in known:
                errors.append(FieldError(name, "unknown", "This parameter is not known here."))
            elif len(values) > 1:
                errors.append(FieldError(name, "repeated", "Give this parameter once."))
            elif "\0" in values[0]:
                errors.append(FieldError(name, "nul", "U+0000 fits nowhere here."))
        if errors:
            raise Invalid(*errors)
        checked = serializer(data=given.dict())  # type: ignore[misc]  # the serializer is the caller's
        checked.is_valid(raise_exception=True)
        return dict(checked.validated_data)

    def body(self, request: Request, serializer: type[StrictSerializer], **context: Any) -> dict[str, Any]:
        checked = serializer(data=request.data, context={"request": request, **context})
        checked.is_valid(raise_exception=True)
        return dict(checked.validated_data)
