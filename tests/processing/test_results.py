"""What a handler may return: JSON as Pydantic writes it. What is no JSON fails for good, and names its place."""

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum, IntEnum
from typing import Any, NamedTuple
from uuid import UUID

import orjson
import pytest
from pydantic import BaseModel, Field, TypeAdapter

from accounts.models import User
from processing.handlers import HandlerRequest
from processing.results import InvalidResult, as_json
from queues.models import Attempt
from tests.processing.conftest import Script
from tests.processing.crew import Hand, attempts_of, new_user, queue_of, requests_of, statuses_of, submit


class Colour(Enum):
    RED = "red"


class Level(IntEnum):
    HIGH = 3


class Page(BaseModel):
    total: float
    price: Decimal = Decimal("1.10")
    inner: Any = None
    shown: int = Field(1, serialization_alias="Shown")


@dataclass
class Point:
    x: float
    _hidden: int = 1


class Pair(NamedTuple):
    first: int
    second: Any


NAN, INFINITY = float("nan"), float("inf")
ITSELF: list[Any] = []
ITSELF.append({"again": ITSELF})
DEEP: Any = 1
for _ in range(300):
    DEEP = [DEEP]


@pytest.mark.parametrize(
    "result",
    [
        None,
        {"pages": 3, "none": None, "half": 0.5},
        Page(total=1),
        [Page(total=1, inner=Page(total=2))],
        Point(1.5),
        {"at": datetime(2026, 1, 2, 3, 4, 5, 600, UTC), "day": date(2026, 1, 2), "took": timedelta(seconds=90)},
        datetime(2026, 1, 2),  # noqa: DTZ001  (handlers may return one)
        Decimal("1.10"),
        UUID(int=7),
        {3},
        frozenset({"a"}),
        (1, Pair(2, {Colour.RED})),
        Colour.RED,
        Level.HIGH,
        {Colour.RED: 1, "b": b"text"},
        {1: "one", None: "none", UUID(int=7): "id"},
        deque([Counter("aab")]),
        "é \U0001f600 \0",
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_result_is_written_as_pydantic_writes_it(result: Any) -> None:
    assert orjson.loads(as_json(result)) == orjson.loads(TypeAdapter(Any).dump_json(result))


@pytest.mark.parametrize(
    ("result", "sentence"),
    [
        (NAN, "result: NaN is not JSON."),
        ({"pages": [1, None, {"total": NAN}]}, "result.pages[2].total: NaN is not JSON."),
        ({"a b": (1, -INFINITY)}, "result['a b'][1]: Infinity is not JSON."),
        ({"pages": [Page(total=1), Page(total=NAN)]}, "result.pages[1].total: NaN is not JSON."),
        (Point(INFINITY), "result.x: Infinity is not JSON."),
        ({"at": date(2026, 1, 1), "x": [NAN]}, "result.x[0]: NaN is not JSON."),
        ({"file": b"\xff"}, "result.file: The bytes are not text in UTF-8; base64 would be."),
        (Page(total=1, inner=[b"\xff"]), "result.inner[0]: The bytes are not text in UTF-8; base64 would be."),
        ("\ud800", "result: Half a surrogate pair is no character."),
        ([{"\ud800": 1}], "result[0]: Half a surrogate pair is no character."),
        ([2**70], "result[0]: The integer does not fit into 64 bits."),
        ([object()], "result[0]: object is not JSON."),
        ({object(): 1}, "result: A key of the type object is not JSON."),
        ({1: "a", "1": "b"}, "result: Two of its keys are '1' in JSON."),
        ((n for n in "ab"), "result: A generator is not JSON: return a list."),
        (ITSELF, "result[0].again: It contains itself."),
        ({"deep": DEEP}, "result: It has more than 250 levels."),
        ("x" * 5_000_000, "result: It has 5000002 bytes of JSON; RESULT_LIMIT is 1048576."),
    ],
    ids=lambda value: value[:60] if isinstance(value, str) else "",
)
def test_what_is_no_json_is_refused_with_its_place(result: Any, sentence: str) -> None:
    with pytest.raises(InvalidResult) as refused:
        as_json(result)
    assert str(refused.value) == sentence


@pytest.mark.filterwarnings("error")
def test_a_coroutine_is_refused_and_closed() -> None:
    async def later() -> int:
        return 1

    with pytest.raises(InvalidResult) as refused:
        as_json({"later": later()})
    assert str(refused.value) == "result.later: A coroutine is not JSON: await it."


def run(hand: Hand, script: Script, result: Callable[[], Any], kind: str) -> tuple[User, list[int]]:
    """A request whose handler returns that; and in which attempts it ran."""
    ran: list[int] = []

    @script
    def returns(request: HandlerRequest) -> Any:
        ran.append(request.attempt)
        if kind == "test.atomic":
            User.objects.create(username="written")
        return result()

    user = new_user()
    submit(user, "returns", kind=kind)
    hand.settle(30)
    return user, ran


@pytest.mark.parametrize("kind", ["test.script", "test.atomic"])
def test_a_result_that_is_no_json_fails_for_good_and_repeats_nothing(hand: Hand, script: Script, kind: str) -> None:
    user, ran = run(hand, script, lambda: {"pages": [NAN]}, kind)
    (request,) = requests_of(user)
    assert ran == [1]
    assert attempts_of(request) == [(1, "failed")]
    assert (request.status, request.result) == ("failed", None)
    assert (request.error["type"], request.error["message"]) == ("InvalidResult", "result.pages[0]: NaN is not JSON.")
    assert not User.objects.filter(username="written").exists(), "the attempt's own writes are rolled back"
    assert Attempt.objects.get().traceback is None, "the sentence says all"


def test_a_result_that_is_no_json_blocks_where_the_kind_wants_that(hand: Hand, script: Script) -> None:
    @script
    def returns(request: HandlerRequest) -> Any:
        return object()

    user = new_user()
    submit(user, "returns", kind="test.block")
    hand.dispatch()
    hand.work()
    assert queue_of(user).state == "blocked"
    assert statuses_of(user) == ["retrying"]


def test_a_model_is_stored_as_json(hand: Hand, script: Script) -> None:
    user, _ = run(hand, script, lambda: Page(total=2), "test.script")
    (request,) = requests_of(user)
    assert request.result == {"total": 2.0, "price": "1.10", "inner": None, "shown": 1}
