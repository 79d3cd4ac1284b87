"""Tickets for event streams: one use, half a minute, for who can send no header (a browser's EventSource).

A ticket stands in the address, where logs may keep it; by then it is spent. It opens a stream and nothing else. Redis
keeps its hash and whom it is for; while Redis is away there are none, and streams are opened with the bearer header.
"""

import hashlib
import secrets
from typing import Any
from uuid import UUID

import orjson
from rest_framework.authentication import BaseAuthentication

from accounts.authentication import Caller
from accounts.tokens import Claims, InvalidToken
from project.redis import RedisUnavailable, Script, call, own
from project.rest.problems import BEARER, ServiceUnavailable

SECONDS = 30
LONGEST = 100  # characters; ours have 43

# Read and remove as one: of two who bring the same ticket one gets in.
SPEND = Script("""
local found = redis.call('MGET', KEYS[1])[1]
redis.call('DEL', KEYS[1])
return found
""")


def issue(claims: Claims) -> str:
    """A ticket for who the claims name. Raises ServiceUnavailable while Redis is away."""
    ticket = secrets.token_urlsafe(32)
    kept = orjson.dumps([str(claims.user_id), str(claims.session_id), claims.jti, claims.expires_at])
    try:
        call("SET", _key(ticket), kept, "EX", SECONDS)
    except RedisUnavailable:
        raise ServiceUnavailable("No tickets at the moment; open the stream with an access token.") from None
    return ticket


def spend(ticket: str) -> Claims:
    """Whom it is for, once. Raises InvalidToken, and ServiceUnavailable while Redis is away."""
    try:
        kept = SPEND([_key(ticket)], []) if len(ticket) <= LONGEST else None
    except RedisUnavailable:
        raise ServiceUnavailable from None
    if kept is None:
        raise InvalidToken("The ticket is unknown, spent or too old; ask for another.")
    user_id, session_id, jti, expires_at = orjson.loads(kept)
    return Claims(UUID(user_id), UUID(session_id), jti, expires_at)


def _key(ticket: str) -> str:
    return own(f"ticket:{hashlib.sha256(ticket.encode()).hexdigest()}")


class TicketAuthentication(BaseAuthentication):
    """`?ticket=` says who is calling. Whether the session still lives is asked by the stream's first look."""

    def authenticate(self, request: Any) -> tuple[Caller, Claims] | None:
        ticket = request.query_params.get("ticket")
        if request.method != "GET" or ticket is None:
            return None
        claims = spend(ticket)
        return Caller(claims.user_id, claims.session_id), claims

    def authenticate_header(self, request: Any) -> str:
        return BEARER
