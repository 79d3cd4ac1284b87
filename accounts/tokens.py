"""Access and refresh tokens: simplejwt's, signed and verified by a ring of keys (RFC 8725, RFC 7638, RFC 7517).

Each key has one algorithm and is named by its `kid`; a token is verified with the key it names, by that key's algorithm
and no other. Without settings.TOKEN_KEYS the ring holds one HS256 key derived from SECRET_KEY. With them, the first
signs and all verify: put a new one in front, and drop the old one when the last refresh token it signed has expired.
"""

import hashlib
import re
import time
from functools import cache, lru_cache
from typing import Any, NamedTuple
from uuid import UUID

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from jwt.algorithms import OKPAlgorithm, RSAAlgorithm
from rest_framework_simplejwt.backends import TokenBackend
from rest_framework_simplejwt.exceptions import TokenBackendError, TokenBackendExpiredToken
from rest_framework_simplejwt.tokens import AccessToken as SimpleAccessToken
from rest_framework_simplejwt.tokens import RefreshToken as SimpleRefreshToken

from project.rest.problems import Unauthenticated

# Verified signatures that are remembered: a client sends the same token for minutes, verifying costs 60 to 160 µs.
# What a signature says never changes; the clock and the session are asked every time.
REMEMBERED = 8192
CLOCKS_DIFFER = 5  # seconds, between the machines that issue and those that verify
LONGEST = 4096  # characters; ours have about 500
REQUIRED = ["exp", "iat", "jti", "sub", "sid", "token_type", "iss", "aud"]


class Claims(NamedTuple):
    """What a verified token says: `request.auth`."""

    user_id: UUID
    session_id: UUID
    jti: str
    expires_at: int


class InvalidToken(Unauthenticated):
    """401: forged, broken, of the wrong type, not yet valid, or from somebody else."""

    name = "token-invalid"

    def __init__(self, detail: str = "The token is not valid.") -> None:
        super().__init__(detail, error="invalid_token")


class ExpiredToken(InvalidToken):
    name = "token-expired"

    def __init__(self) -> None:
        super().__init__("The token has expired.")


def read_access(token: str) -> Claims:
    """The claims of an access token, by its signature and the clock alone. Raises InvalidToken."""
    return _read(AccessToken, token)


def read_refresh(token: str) -> Claims:
    """The claims of a refresh token. Raises InvalidToken."""
    return _read(RefreshToken, token)


def _read(kind: type["AccessToken"] | type["RefreshToken"], token: str) -> Claims:
    if len(token) > LONGEST:
        raise InvalidToken
    try:
        payload = keyring().decode(token)
        if payload["token_type"] != kind.token_type:
            raise InvalidToken
        return Claims(UUID(payload["sub"]), UUID(payload["sid"]), payload["jti"], payload["exp"])
    except TokenBackendExpiredToken:
        raise ExpiredToken from None
    except (TokenBackendError, TypeError, ValueError, AttributeError):
        raise InvalidToken from None


class Key(NamedTuple):
    """One key of the ring. `signing` is None where only the public half is known: it verifies what is still about."""

    kid: str
    algorithm: str
    signing: Any
    verifying: Any
    jwk: dict[str, Any] | None


class Keyring(TokenBackend):
    """simplejwt's backend with more than one key, and a memory for verified signatures."""

    def __init__(self, keys: list[Key], issuer: str, audience: str) -> None:
        self.keys = {key.kid: key for key in keys}
        self.first = keys[0]
        super().__init__(self.first.algorithm, issuer=issuer, audience=audience)
        self.verified = lru_cache(REMEMBERED)(self.verify)
        self.key_named = lru_cache(16)(self.find_key)

    def encode(self, payload: dict[str, Any]) -> str:
        claims = {**payload, "iss": self.issuer, "aud": self.audience}
        return jwt.encode(claims, self.first.signing, self.first.algorithm, headers={"kid": self.first.kid})

    def decode(self, token: Any, verify: bool = True) -> dict[str, Any]:
        """The claims of a token. Raises TokenBackendError, of which an expired token is one kind."""
        claims: dict[str, Any] = self.verified(token)
        now = time.time()
        if not now < claims["exp"]:
            raise TokenBackendExpiredToken("Token is expired")
        if claims["iat"] > now + CLOCKS_DIFFER or claims.get("nbf", 0) > now:
            raise TokenBackendError("Token is not valid yet")
        return claims

    def verify(self, token: str) -> dict[str, Any]:
        try:
            key = self.key_named(token.partition(".")[0])
            claims: dict[str, Any] = jwt.decode(
                token,
                key.verifying,
                [key.algorithm],
                issuer=self.issuer,
                audience=self.audience,
                options={
                    "require": REQUIRED,
                    "strict_aud": True,
                    "verify_exp": False,
                    "verify_nbf": False,
                    "verify_iat": False,
                },
            )
        except jwt.InvalidTokenError:
            raise TokenBackendError("Token is invalid") from None
        if not all(isinstance(claims.get(name, 0), int) for name in ("exp", "iat", "nbf")):
            raise TokenBackendError("Token is invalid")
        return claims

    def find_key(self, header_segment: str) -> Key:
        """The key that a token's header names; nothing else may stand there."""
        header = jwt.get_unverified_header(f"{header_segment}.e30.")
        key = self.keys.get(header.get("kid", ""))
        if key is None or set(header) != {"alg", "kid", "typ"}:
            raise TokenBackendError("Token is invalid")
        return key

    def jwks(self) -> dict[str, list[dict[str, Any]]]:
        """The public keys, for others who verify our tokens (RFC 7517). Empty while the key is a shared secret."""
        return {"keys": [key.jwk for key in self.keys.values() if key.jwk]}


def read_keys(pem: str) -> list[Key]:
    """The keys in `pem`, in their order, or the derived HS256 key. Raises ImproperlyConfigured with what to write."""
    pem = pem.replace("\\n", "\n")  # a variable on one line
    if not pem.strip():
        secret = settings.TOKEN_KEY
        return [Key("hs-" + hashlib.sha256(f"kid:{secret}".encode()).hexdigest()[:16], "HS256", secret, secret, None)]
    blocks = re.finditer(r"-----BEGIN ([A-Z ]+)-----.+?-----END \1-----", pem, re.DOTALL)
    try:
        keys = [asymmetric(block[0], private="PRIVATE" in block[1]) for block in blocks]
    except (TypeError, ValueError):
        keys = []
    if not keys or keys[0].signing is None:
        raise ImproperlyConfigured(
            "TOKEN_KEYS does not fit: write PEM blocks of Ed25519 keys or of RSA keys of at least 2048 bits, "
            "the private key that signs first."
        )
    return keys


def asymmetric(pem: str, *, private: bool) -> Key:
    signing: Any = load_pem_private_key(pem.encode(), None) if private else None
    verifying: Any = signing.public_key() if private else load_pem_public_key(pem.encode())
    if isinstance(verifying, Ed25519PublicKey) and (signing is None or isinstance(signing, Ed25519PrivateKey)):
        algorithm, jwk = "EdDSA", OKPAlgorithm.to_jwk(verifying, as_dict=True)
    elif isinstance(verifying, RSAPublicKey) and (signing is None or isinstance(signing, RSAPrivateKey)):
        if verifying.key_size < 2048:
            raise ValueError("too short")
        algorithm, jwk = "RS256", RSAAlgorithm.to_jwk(verifying, as_dict=True)
    else:
        raise TypeError("neither Ed25519 nor RSA")
    public = {name: value for name, value in jwk.items() if name not in ("key_ops", "use", "alg")}
    kid = thumbprint(public)
    return Key(kid, algorithm, signing, verifying, {**public, "kid": kid, "use": "sig", "alg": algorithm})


def thumbprint(jwk: dict[str, Any]) -> str:
    """RFC 7638: the hash of the members that make the key, in lexical order."""
    members = ",".join(f'"{name}":"{jwk[name]}"' for name in sorted(jwk) if name in ("crv", "e", "kty", "n", "x"))
    return hashlib.sha256(f"{{{members}}}".encode()).hexdigest()[:32]


@cache
def keyring() -> Keyring:
    """The ring of this process. Raises ImproperlyConfigured when TOKEN_KEYS does not fit."""
    return Keyring(read_keys(settings.TOKEN_KEYS), settings.ENV.token_issuer, settings.ENV.token_audience)


class AccessToken(SimpleAccessToken):
    """Short-lived; names its session, and is worth nothing after that has ended."""

    def get_token_backend(self) -> TokenBackend:
        return keyring()


class RefreshToken(SimpleRefreshToken):
    """Long-lived and good for one use."""

    def get_token_backend(self) -> TokenBackend:
        return keyring()
