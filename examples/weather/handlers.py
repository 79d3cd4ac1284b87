"""Asks an API that limits its callers, and comes back when it says so."""

import os
from contextlib import suppress
from typing import Any
from urllib.parse import quote

import httpcore
import orjson
from pydantic import BaseModel, Field

from processing.handlers import HandlerRequest, Reject, RetryLater, handler

SECONDS = {"connect": 3.0, "read": 10.0, "write": 10.0, "pool": 3.0}
UNSAID = 30.0  # seconds until it is asked again where the API does not say


class Place(BaseModel):
    place: str = Field(min_length=1, max_length=100)


@handler("weather.now", schema=Place, max_attempts=50, time_limit=30)
def now(request: HandlerRequest, payload: Place) -> Any:
    """The weather at a place. After a 429 the request waits at the head of its queue, and no thread with it."""
    answer = httpcore.request(
        "GET", f"{os.environ['WEATHER_API']}/{quote(payload.place, safe='')}", extensions={"timeout": SECONDS}
    )
    if answer.status == 429:
        raise RetryLater(wait_of(answer), "the API limits us")
    if answer.status == 404:
        raise Reject("There is no such place.")
    if answer.status != 200:
        raise RuntimeError(f"The API answered {answer.status}.")
    return orjson.loads(answer.content)


def wait_of(answer: httpcore.Response) -> float:
    """The seconds that Retry-After names."""
    for name, value in answer.headers:
        if name.lower() == b"retry-after":
            with suppress(ValueError):
                return float(value)
    return UNSAID
