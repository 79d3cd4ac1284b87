"""Charges a card, once, whatever fails on the way."""

import os

import httpcore
import orjson
from pydantic import BaseModel, Field

from processing.handlers import HandlerRequest, Reject, handler

SECONDS = {"connect": 3.0, "read": 10.0, "write": 10.0, "pool": 3.0}
FINAL = (400, 402, 422)  # no other: after a lost answer, 409 says that the first attempt is still charging


class Charge(BaseModel):
    order: str = Field(min_length=1, max_length=64)
    cents: int = Field(gt=0, le=1_000_000)


@handler("payments.charge", schema=Charge, max_attempts=8, time_limit=30, backoff=1, on_failure="block")
def charge(request: HandlerRequest, payload: Charge) -> dict[str, str]:
    """Charges an order. After the last attempt the user's queue stops, until somebody has looked."""
    answer = httpcore.request(
        "POST",
        os.environ["PAYMENTS_GATEWAY"],
        # The same in every attempt: the gateway charges once, and gives the first answer again.
        headers={"Idempotency-Key": str(request.id), "Content-Type": "application/json"},
        content=orjson.dumps({"order": payload.order, "cents": payload.cents}),
        extensions={"timeout": SECONDS},
    )
    if answer.status in FINAL:
        raise Reject(f"The gateway refused with {answer.status}.")
    if answer.status not in (200, 201):
        raise RuntimeError(f"The gateway answered {answer.status}; nobody knows whether it charged.")
    return {"order": payload.order, "charge": orjson.loads(answer.content)["id"]}
