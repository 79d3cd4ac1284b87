"""What a handler must be like, and what is said when it is not."""

import functools
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from processing.handlers import HandlerRequest, WrongHandler, handler
from project.start import place
from queues import kinds
from tests.processing import kinds as _kinds
from tests.processing.crew import Hand, new_user, requests_of, submit


def build(request: HandlerRequest, payload: Any) -> int:
    return 1


def no_payload(request: HandlerRequest) -> int:
    return 1


def too_many(request: HandlerRequest, payload: Any, more: Any) -> int:
    return 1


async def awaited(request: HandlerRequest, payload: Any) -> int:
    return 1


async def yields_later(request: HandlerRequest, payload: Any) -> Any:
    yield 1


def yields(request: HandlerRequest, payload: Any) -> Any:
    yield 1


def at(function: Callable[..., Any]) -> str:
    return place(inspect.getsourcefile(function) or "", inspect.getsourcelines(function)[1])


@pytest.mark.parametrize(
    ("arguments", "function", "sentence"),
    [
        (
            {},
            no_payload,
            "no_payload(request: processing.handlers.HandlerRequest) -> int cannot be called with (request, payload), "
            "which every handler is given.",
        ),
        (
            {},
            too_many,
            "too_many(request: processing.handlers.HandlerRequest, payload: Any, more: Any) -> int cannot be called "
            "with (request, payload), which every handler is given.",
        ),
        (
            {"atomic": True},
            awaited,
            "awaited is async and atomic: no transaction spans an await. Write def, or leave atomic out.",
        ),
        ({}, yields_later, "yields_later yields. A handler is no generator: return its result."),
        ({}, yields, "yields yields. A handler is no generator: return its result."),
        ({"name": "a b"}, build, "'a b' is no name: write up to 100 letters, digits, dots, as in 'report.build'."),
        ({"name": 7}, build, "7 is no name: write up to 100 letters, digits, dots, as in 'report.build'."),
        ({"on_failure": "stop"}, build, "'test.new' has on_failure='stop': write 'continue' or 'block'."),
        ({"max_attempts": 0}, build, "'test.new' has max_attempts=0: write a whole number from 1."),
        ({"max_attempts": "3"}, build, "'test.new' has max_attempts='3': write a whole number from 1."),
        ({"version": 1.5}, build, "'test.new' has version=1.5: write a whole number from 1."),
        ({"max_concurrency": 0}, build, "'test.new' has max_concurrency=0: write a whole number from 1."),
        ({"max_concurrency": "2"}, build, "'test.new' has max_concurrency='2': write a whole number from 1."),
        *(
            (
                {"rate": rate},
                build,
                f"'test.new' has rate={rate!r}: write up to 100000 for a time, as in '100/m', '5/10s', '1000/h' or "
                "'20/d'.",
            )
            for rate in ("x/y", "0/m", "-1/m", 100, "100", "1/0s", "200000/s", "1/w")
        ),
        ({"atomic": "no"}, build, "'test.new' has atomic='no': write True or False."),
        ({"description": 7}, build, "'test.new' has description=7: write a text."),
        *(
            (
                {"permission": permission},
                build,
                f"'test.new' has permission={permission!r}: no model of an installed app has it. Write one that there "
                "is, or a function that takes the user.",
            )
            for permission in ("queues.view_reqeust", "queue.view_request", "reports.add_report")
        ),
        ({"schema": dict}, build, "'test.new' has schema=<class 'dict'>: write a class made from pydantic.BaseModel."),
        ({"time_limit": "60"}, build, "'test.new' has time_limit='60': write a number of seconds."),
        (
            {"backoff": 9, "backoff_cap": 3},
            build,
            "'test.new' has time_limit=60, backoff=9, backoff_cap=3: time_limit is above 0, and "
            "0 <= backoff <= backoff_cap.",
        ),
    ],
    ids=lambda value: getattr(value, "__name__", str(value))[:50],
)
def test_what_does_not_fit_is_refused_with_file_and_line(
    arguments: dict[str, Any], function: Callable[..., Any], sentence: str
) -> None:
    with pytest.raises(WrongHandler) as refused:
        handler(**{"name": "test.new", **arguments})(function)
    assert str(refused.value) == f"{at(function)}: {sentence}"


@pytest.mark.parametrize("permission", ["queues.view_request", "schedules.operate_schedule", "auth.change_group"])
def test_a_permission_of_any_installed_model_fits(permission: str) -> None:
    with _kinds.kept():
        handler("test.new", permission=permission)(build)


def test_a_bare_handler_is_refused_with_file_and_line() -> None:
    with pytest.raises(WrongHandler) as refused:
        handler(build)  # type: ignore[arg-type]
    assert str(refused.value) == f'{at(build)}: Write @handler("name.of.the.kind") instead of @handler.'


def test_a_kind_that_is_there_already_is_refused_with_both_places() -> None:
    with pytest.raises(WrongHandler) as refused:
        handler("test.journal")(build)
    other = at(_kinds.write_journal)
    said = f"'test.journal' version 1 has a handler already, at {other}. Give one another name or version."
    assert str(refused.value) == f"{at(build)}: {said}"


def test_a_wrapped_handler_is_told_by_its_own_place() -> None:
    @functools.wraps(build)
    def wrapper(*arguments: Any) -> Any:
        return build(*arguments)

    with pytest.raises(WrongHandler, match=re.escape(at(build))):
        handler("test.journal")(wrapper)


@pytest.fixture
def readme(tmp_path: Path) -> str:
    """The README's handler as it stands."""
    text = (Path(__file__).resolve().parents[2] / "README.md").read_text()
    (code,) = re.findall(r"```python\n(# yourapp/handlers\.py.*?)```", text, re.DOTALL)
    return str(code)


def test_the_readmes_handler_runs_as_it_stands(hand: Hand, readme: str) -> None:
    with _kinds.kept():
        exec(compile(readme, "handlers.py", "exec"), {"__name__": "yourapp.handlers"})  # noqa: S102
        user = new_user()
        submit(user, {"pages": ["one", "two"]}, kind="report.build")
        hand.settle()
        (request,) = requests_of(user)
    assert (request.status, request.result, request.on_failure) == ("succeeded", {"pages": 2}, "block")
    assert request.max_attempts == 5


def test_versions_of_a_kind_share_its_limits() -> None:
    with _kinds.kept():
        handler("test.new", max_concurrency=2, rate="60/m")(build)
        handler("test.new", version=2)(build)
        handler("test.new", version=3, rate="60/1m")(build)
        assert kinds.declared_limits()["test.new"] == (2, kinds.Rate(60, 60))
        with pytest.raises(WrongHandler) as refused:
            handler("test.new", version=4, max_concurrency=3)(build)
    assert str(refused.value) == (
        f"{at(build)}: 'test.new' has max_concurrency=3, its version 1 2: limits are of all versions together. "
        "Write the same, or leave it out."
    )


@pytest.mark.parametrize("text", ["100/m", "5/10s", "1000/h", "20/d", "7/90m"])
def test_a_rate_is_written_as_it_is_read(text: str) -> None:
    assert str(kinds.Rate.parse(text)) == text
