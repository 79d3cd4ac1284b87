"""Signatures as Standard Webhooks 1.0.0 has them: HMAC-SHA256 over id, time and body; `v1`, then base64."""

import base64
import hmac
import secrets
from hashlib import sha256

PREFIX = "whsec_"
BYTES = 32


def new_secret() -> str:
    return PREFIX + base64.b64encode(secrets.token_bytes(BYTES)).decode()


def headers(message_id: str, timestamp: int, body: bytes, *secrets: str) -> dict[str, str]:
    """What goes with the body; signed with each secret that a receiver may still use."""
    signatures = " ".join(_signature(message_id, timestamp, body, secret) for secret in secrets if secret)
    return {"webhook-id": message_id, "webhook-timestamp": str(timestamp), "webhook-signature": signatures}


def _signature(message_id: str, timestamp: int, body: bytes, secret: str) -> str:
    key = base64.b64decode(secret.removeprefix(PREFIX))
    signed = hmac.digest(key, f"{message_id}.{timestamp}.".encode() + body, sha256)
    return "v1," + base64.b64encode(signed).decode()
