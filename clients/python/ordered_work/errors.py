"""What can go wrong, each as a class of its own: made of the service's `application/problem+json`."""

from typing import Any, NamedTuple


class OrderedWorkError(Exception):
    """The base of all that this package raises."""


class Unreachable(OrderedWorkError):
    """No answer came, also when it was tried again."""


class StillRunning(OrderedWorkError, TimeoutError):
    """The request was not final within the time that `wait` had. It goes on."""


class FieldError(NamedTuple):
    """What is wrong with one field: its dotted path, a code for programs, a sentence."""

    field: str
    code: str
    detail: str


class ApiError(OrderedWorkError):
    """The service refused. Compare `type`; report `request_id`; `retry_after` is in seconds."""

    def __init__(self, status: int, problem: dict[str, Any], retry_after: float | None = None) -> None:
        self.status = status
        self.type = str(problem.get("type", "about:blank"))
        self.detail = str(problem.get("detail", f"The service answered {status}."))
        self.request_id = str(problem.get("request_id", ""))
        self.errors = [FieldError(**error) for error in problem.get("errors", ())]
        self.retry_after = retry_after
        fields = "".join(f" {error.field}: {error.detail}" for error in self.errors)
        super().__init__(f"{status} {self.type}: {self.detail}{fields}")


class Invalid(ApiError):
    """400: `errors` names the fields."""


class NotAuthenticated(ApiError):
    """401: log in again."""


class Forbidden(ApiError):
    """403."""


class NotFound(ApiError):
    """404: it is not there, or somebody else's."""


class Conflict(ApiError):
    """409: the state of things does not allow it."""


class KeyReused(ApiError):
    """422: the idempotency key came before with something else."""


class TooMany(ApiError):
    """429: a limit is used up; `retry_after` says for how long."""


class Unavailable(ApiError):
    """502, 503 or 504: also when it was tried again."""


BY_STATUS: dict[int, type[ApiError]] = {
    400: Invalid,
    401: NotAuthenticated,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    422: KeyReused,
    429: TooMany,
    502: Unavailable,
    503: Unavailable,
    504: Unavailable,
}
