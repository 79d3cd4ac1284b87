"""A kind that blocks its queue, and two that have every sort of field, for the page's tests."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from processing.handlers import HandlerRequest, Reject, handler


class Place(BaseModel):
    street: str
    floor: int | None = None


class Order(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    product: Literal["tea", "coffee"]
    amount: int = Field(ge=1, le=9)
    price: float | None = None
    gift: bool = False
    lines: list[str] = Field([], description="What is written on it.")
    place: Place
    extra: dict[str, Any] = {}


@handler("page.order", schema=Order, description="Gives the order back.")
def order(request: HandlerRequest, payload: Order) -> Any:
    if payload.place.street == "gone":
        raise Reject("nobody lives there")
    return payload.model_dump()


class Choices(BaseModel):
    asked: bool | None = None
    needed: bool | None
    single: Literal["only"] | None = None
    level: Literal[1, 2] | None = 2
    exact: int = 0
    anything: Any = 5


@handler("page.choices", schema=Choices, description="Gives back what was chosen.")
def choices(request: HandlerRequest, payload: Choices) -> Any:
    return payload.model_dump()


@handler("page.stuck", max_attempts=1, on_failure="block", description="Fails, and blocks its queue.")
def stuck(request: HandlerRequest, payload: Any) -> None:
    raise Reject("there is no paper in the printer")
