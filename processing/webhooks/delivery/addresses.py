"""Which addresses a webhook may have. What a name leads to is looked at each time it is connected to."""

from ipaddress import ip_address

from pydantic import HttpUrl, ValidationError

from processing.http_call.schema import read_url
from processing.http_call.ssrf import Caller, may_connect

WEBHOOKS = Caller("a webhook", "WEBHOOK_ALLOW")
LONGEST = 2048


def read(text: str) -> HttpUrl:
    """The address. Raises ValueError with a sentence about what does not fit."""
    try:
        url = read_url.validate_python(text)
    except ValidationError as wrong:
        raise ValueError(wrong.errors()[0]["msg"].removeprefix("Value error, ")) from None
    if len(str(url)) > LONGEST:
        raise ValueError(f"Write at most {LONGEST} characters.")
    if url.fragment is not None:
        raise ValueError("Leave out the part after #: it is not sent.")
    host = (url.host or "").strip("[]")
    if url.scheme != "https" and not _opened(host):
        raise ValueError("Write an address that begins with https://.")
    if _is_address(host) and not may_connect(host, host, WEBHOOKS):
        raise ValueError("This address is not public. An operator can allow it: WEBHOOK_ALLOW.")
    return url


def _opened(host: str) -> bool:
    """Whether an operator named the host: then it may speak http, too."""
    allowed = WEBHOOKS.allowed
    return allowed.names_host(host) or (_is_address(host) and allowed.has(ip_address(host)))


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
