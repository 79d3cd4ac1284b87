"""This project's side of the loads: the job that all peers run, as a kind."""

from typing import Any

from pydantic import BaseModel

from bench import trace
from processing.handlers import HandlerRequest, handler

KIND = "bench.job"


class Job(BaseModel):
    """Whose job it is, its number, how many milliseconds it takes, and whether its first attempt fails."""

    user: int
    n: int
    ms: float = 0
    fail: bool = False


@handler(KIND, schema=Job, max_attempts=3, backoff=0.1, time_limit=10)
def job(request: HandlerRequest, job: Job) -> dict[str, Any]:
    """Leaves a record of having run."""
    return trace.perform({"user": job.user, "n": job.n, "ms": job.ms, "fail": job.fail})
