"""How often something may be done: limits that hold exactly, whoever comes at the same time.

    rate_limit.take(request, rate_limit.SUBMIT.claim(str(user.id)))            one submission
    rate_limit.take(request, rate_limit.SUBMIT.claim(str(user.id), cost=500))  a batch

`take` counts all claims or none, in one round trip, raises TooManyRequests (429) with Retry-After where one does not
fit, and leaves what the `RateLimit` headers say in `request.rate_limits`, for the middleware that made this list
(draft-ietf-httpapi-ratelimit-headers). In no stretch of `window` seconds does more than `quota` pass.

Without Redis a limit either fails open (`without_redis="open"`: submissions, each user's own queue limit still holds)
or counts in this process alone (`"local"`: logins and registrations; n processes let n times as many pass).
"""

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from django.conf import settings

from project.redis import RedisUnavailable, own
from project.rest.problems import TooManyRequests
from project.web.counting import GIVE_BACK, TAKE, TAKE_EACH

LOCAL_KEYS = 10_000
COUNTED_HERE = 0  # the second of a claim that was counted in this process


@dataclass(frozen=True)
class Limit:
    """At most `quota` in any `window` seconds, for each key."""

    name: str
    quota: int
    window: int = 60
    without_redis: Literal["open", "local"] = "open"

    def claim(self, key: str, cost: int = 1) -> "Claim":
        return Claim(self, key, cost)


class Claim(NamedTuple):
    limit: Limit
    key: str
    cost: int

    @property
    def redis_key(self) -> str:
        return own(f"{settings.ENV.queue_prefix}limit:{self.limit.name}:{self.key}")


class Taken(NamedTuple):
    """What one claim left: `remaining` until `reset` seconds from now, and where it was counted."""

    claim: Claim
    remaining: int
    reset: int
    second: int

    @property
    def policy(self) -> str:
        return f'"{self.claim.limit.name}";q={self.claim.limit.quota};w={self.claim.limit.window}'

    @property
    def state(self) -> str:
        return f'"{self.claim.limit.name}";r={self.remaining};t={self.reset}'


class Held(NamedTuple):
    """A limit of bytes that are kept: `remaining` of `quota`, and worth another look in `reset` seconds."""

    name: str
    quota: int
    remaining: int
    reset: int

    @property
    def policy(self) -> str:
        return f'"{self.name}";q={self.quota};qu="content-bytes"'

    @property
    def state(self) -> str:
        return f'"{self.name}";r={self.remaining};t={self.reset}'


def add(request: Any, held: Held) -> None:
    """Have the answer's headers name this limit, too."""
    request.rate_limits.append(held)


def take(request: Any, *claims: Claim) -> list[Taken]:
    """Counts every claim, or none and raises TooManyRequests. `request` is Django's or DRF's."""
    fits, taken = count(*claims)
    request.rate_limits[:] = taken
    if not fits:
        raise TooManyRequests(retry_after=max(one.reset for one in taken if one.remaining < one.claim.cost))
    return taken


def headers(taken: Sequence[Taken | Held]) -> dict[str, str]:
    """What an answer says about the limits that were counted for it."""
    if not taken:
        return {}
    policy, state = ", ".join(one.policy for one in taken), ", ".join(one.state for one in taken)
    return {"RateLimit-Policy": policy, "RateLimit": state}


def fits(claim: Claim) -> bool:
    """Counts the claim if it fits; whether it did. The client hears nothing of it."""
    return count(claim)[0]


def count(*claims: Claim) -> tuple[bool, list[Taken]]:
    """Counts every claim, or none where one does not fit; whether all did, and what is left of each."""
    try:
        return _answered(claims, TAKE(*_asked(claims)))
    except RedisUnavailable:
        return _counted_here(claims)


def give_back(taken: list[Taken]) -> None:
    """Takes the claims back, as if never made: a login that succeeded is no failed one."""
    _local.give_back([one for one in taken if one.second == COUNTED_HERE])
    there = [one for one in taken if one.second != COUNTED_HERE]
    if not there:
        return
    with suppress(RedisUnavailable):  # it forgets by itself after the window
        GIVE_BACK(
            [one.claim.redis_key for one in there],
            [value for one in there for value in (one.second, one.claim.cost)],
        )


def count_each(claims: Sequence[Claim]) -> list[tuple[bool, list[Taken]]]:
    """`count` for each of them by itself, in one round trip. What Redis makes nothing of does not fit."""
    try:
        replies = TAKE_EACH(*_asked(claims), probe=False)
    except RedisUnavailable:
        return [_counted_here((claim,)) for claim in claims]
    return [_answered((claim,), reply) if reply else (False, []) for claim, reply in zip(claims, replies, strict=True)]


def _asked(claims: Sequence[Claim]) -> tuple[list[str], list[Any]]:
    """What the scripts are asked about them: keys and arguments."""
    numbers = [n for claim in claims for n in (claim.limit.quota, claim.limit.window, claim.cost)]
    return [claim.redis_key for claim in claims], numbers


def _answered(claims: tuple[Claim, ...], reply: list[int]) -> tuple[bool, list[Taken]]:
    fits, *states = reply
    return bool(fits), [Taken(claim, *states[3 * i : 3 * i + 3]) for i, claim in enumerate(claims)]


def _counted_here(claims: tuple[Claim, ...]) -> tuple[bool, list[Taken]]:
    return _local.take(tuple(claim for claim in claims if claim.limit.without_redis == "local"))


@dataclass
class _Local:
    """The same count in this process's memory, for as long as Redis is away: the newest LOCAL_KEYS keys."""

    times: OrderedDict[str, deque[float]] = field(default_factory=OrderedDict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, claims: tuple[Claim, ...]) -> tuple[bool, list[Taken]]:
        with self.lock:
            now = time.monotonic()
            rows = [self.recent(claim, now) for claim in claims]
            fits = all(len(row) + c.cost <= c.limit.quota for row, c in zip(rows, claims, strict=True))
            taken = []
            for row, claim in zip(rows, claims, strict=True):
                if fits:
                    row.extend([now] * claim.cost)
                oldest = row[0] if row else now
                reset = max(1, int(oldest + claim.limit.window - now) + 1)
                taken.append(Taken(claim, max(claim.limit.quota - len(row), 0), reset, COUNTED_HERE))
            return fits, taken

    def recent(self, claim: Claim, now: float) -> deque[float]:
        row = self.times.setdefault(claim.redis_key, deque())
        self.times.move_to_end(claim.redis_key)
        while len(self.times) > LOCAL_KEYS:
            self.times.popitem(last=False)
        while row and row[0] <= now - claim.limit.window:
            row.popleft()
        return row

    def give_back(self, taken: list[Taken]) -> None:
        with self.lock:
            for one in taken:
                row = self.times.get(one.claim.redis_key)
                for _ in range(min(one.claim.cost, len(row or ()))):
                    row.pop()  # type: ignore[union-attr]


_local = _Local()


SUBMIT = Limit("submit", settings.ENV.submissions_per_minute)
FAILED_LOGINS = Limit("failed-logins", settings.ENV.failed_logins_per_minute, without_redis="local")
LOGINS = Limit("logins", settings.ENV.logins_per_minute, without_redis="local")
AUDITED_REFUSALS = Limit("audited-refusals", 10, without_redis="local")  # lines of the audit trail, not attempts
ACCOUNT_CALLS = Limit("account-calls", settings.ENV.account_calls_per_minute, without_redis="local")
MAILS = Limit("mails", settings.ENV.mails_per_hour, window=3600, without_redis="local")
EXPORTS = Limit("exports", settings.ENV.exports_per_hour, window=3600, without_redis="local")
REGISTRATIONS = Limit("registrations", settings.ENV.registrations_per_minute, without_redis="local")
