"""How a refusal for too many bytes is worded, and when it is worth coming back."""

import math

from rest_framework.request import Request as APIRequest

from project.rest.problems import FieldError, Invalid, TooManyRequests
from project.web import rate_limit
from queues.exceptions import TooManyBytes

LONGEST_RETRY_AFTER = 3600


def too_many_bytes(request: APIRequest, full: TooManyBytes) -> Invalid | TooManyRequests:
    """Why so many bytes do not fit. What is stored becomes less when old requests are removed, no sooner."""
    error = FieldError("payload", full.code, str(full))
    if full.asked > full.limit:
        return Invalid(error)
    seconds = LONGEST_RETRY_AFTER
    if full.code == "bytes_waiting":  # a share of them has to be done
        share = (full.used + full.asked - full.limit) / full.used
        seconds = retry_after(share * full.queue.depth * (full.queue.avg_service_seconds or 1))
    rate_limit.add(request, rate_limit.Held(full.code, full.limit, max(0, full.limit - full.used), seconds))
    return TooManyRequests(str(full), name="too-many-bytes", errors=[error], retry_after=seconds)


def retry_after(seconds: float) -> int:
    return max(1, min(LONGEST_RETRY_AFTER, math.ceil(seconds)))
