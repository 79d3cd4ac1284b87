"""Kinds to try the service with."""

import time
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from processing.handlers import HandlerRequest, handler


@handler("demo.echo", time_limit=10, description="Gives its payload back.")
def echo(request: HandlerRequest, payload: Any) -> Any:
    return payload


class Steps(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    steps: int = Field(ge=1, le=10_000)
    delay_ms: int = Field(0, ge=0, le=10_000)


@handler("demo.steps", schema=Steps, time_limit=3600, description="Counts its steps, with a pause before each.")
def steps(request: HandlerRequest, payload: Steps) -> list[int]:
    done: list[int] = []
    for step in range(1, payload.steps + 1):
        if request.cancelled:
            break
        time.sleep(payload.delay_ms / 1000)
        done.append(step)
        request.progress(step, payload.steps)
    return done


class Flaky(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    failures: int = Field(ge=0, le=20)


@handler(
    "demo.flaky",
    schema=Flaky,
    max_attempts=25,
    time_limit=10,
    backoff=0.1,
    backoff_cap=2,
    description="Fails, then succeeds.",
)
def flaky(request: HandlerRequest, payload: Flaky) -> dict[str, int]:
    if request.attempt <= payload.failures:
        raise RuntimeError(f"failure {request.attempt} of {payload.failures}, as asked for")
    return {"attempts": request.attempt}
