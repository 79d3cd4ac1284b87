"""Accepts a job: the token is checked, the body validated, the job handed to Celery on RabbitMQ. No order, no record.

Celery's defaults: persistent messages, a pool of connections. No worker runs, as none runs for the others.
"""

import os
from typing import Annotated, Any

import jwt
from celery import Celery  # type: ignore[import-untyped]  # it has none
from fastapi import Depends, FastAPI, Header, HTTPException
from pydantic import BaseModel

SECRET = os.environ["BENCH_SECRET"]

celery = Celery("bench", broker=os.environ["RABBITMQ_URL"])
app = FastAPI()


@celery.task(name="echo", ignore_result=True)
def echo(user: str, kind: str, payload: Any) -> Any:
    return payload


def accepted(user: str, submission: "Submission") -> dict[str, Any]:
    job = enqueue(user, submission)
    return {"id": job, "kind": submission.kind, "status": "queued", "payload": submission.payload}


def enqueue(user: str, submission: "Submission") -> str:
    """For `accept` nobody runs it; end to end it is the job of all peers, its result goes to PostgreSQL."""
    if os.environ.get("BENCH_TRACE"):
        from bench.peers.celery_results import job

        return str(job.delay(submission.payload).id)
    return str(echo.delay(user, submission.kind, submission.payload).id)


class Submission(BaseModel):
    kind: str
    payload: Any


def caller(authorization: Annotated[str, Header()] = "") -> str:
    """Who asks, by the token's signature and claims."""
    try:
        claims = jwt.decode(
            authorization.removeprefix("Bearer "), SECRET, algorithms=["HS256"], audience="bench", issuer="bench"
        )
    except jwt.InvalidTokenError:
        raise HTTPException(401, "The token is not valid.", {"WWW-Authenticate": "Bearer"}) from None
    return str(claims["sub"])


if os.environ.get("BENCH_ASYNC"):

    @app.post("/requests", status_code=202)
    async def submit(submission: Submission, user: Annotated[str, Depends(caller)]) -> dict[str, Any]:
        return accepted(user, submission)

else:

    @app.post("/requests", status_code=202)
    def submit_in_thread(submission: Submission, user: Annotated[str, Depends(caller)]) -> dict[str, Any]:
        return accepted(user, submission)
