"""Whose call it is: the client's address behind proxies, for limits, sessions and the audit trail."""

import ipaddress
from typing import Any

from django.conf import settings


def client_address(request: Any) -> str:
    """The address that the `settings.ENV.trusted_proxies` proxies in front vouch for; without any, the connection's.

    A proxy appends the address it was called from to X-Forwarded-For. So with n proxies the n-th entry from the right
    is the newest that a client could not write itself. Empty where there is none (a Unix socket).
    """
    connected = plain(request.META.get("REMOTE_ADDR", ""))
    proxies = settings.ENV.trusted_proxies
    if not proxies:
        return connected
    entries = request.META.get("HTTP_X_FORWARDED_FOR", "").split(",")
    return (plain(entries[-proxies]) if len(entries) >= proxies else "") or connected


def plain(address: str) -> str:
    """An IP address in one spelling, without zone; empty when it is none."""
    try:
        parsed = ipaddress.ip_address(address.strip().partition("%")[0])
    except ValueError:
        return ""
    return str(getattr(parsed, "ipv4_mapped", None) or parsed)


def address_key(request: Any) -> str:
    """`client_address` as a key for limits: an IPv6 customer owns a whole /64, so that is one key."""
    address = client_address(request)
    return str(ipaddress.ip_network((address, 64), strict=False)) if ":" in address else address
