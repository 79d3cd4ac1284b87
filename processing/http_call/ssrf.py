"""Against SSRF: which addresses may be connected to. Public ones, and what an operator's setting names."""

from dataclasses import dataclass
from functools import cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from django.conf import settings

Address = IPv4Address | IPv6Address

# What `is_global` of some Python versions lets through. IANA's special-purpose address registries.
SPECIAL = (
    ip_network("192.0.0.0/24"),  # IETF protocol assignments; a cloud's metadata service is among them
    ip_network("192.88.99.0/24"),  # 6to4 relays
    ip_network("168.63.129.16/32"),  # Azure's platform service, on a public address
    ip_network("2001::/23"),  # IETF protocol assignments, Teredo among them
    ip_network("2002::/16"),  # 6to4: an IPv4 address inside
    ip_network("3fff::/20"),  # documentation
)
GLOBAL_UNICAST = IPv6Network("2000::/3")
NAT64 = IPv6Network("64:ff9b::/96")


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls, as a refusal names it, and the setting that opens more than public addresses to it."""

    name: str
    setting: str

    @property
    def allowed(self) -> "Allowed":
        return _allowed(getattr(settings.ENV, self.setting.lower()))


HTTP_CALL = Caller("http.call", "HTTP_CALL_ALLOW")


@dataclass(frozen=True, slots=True)
class Allowed:
    """What an operator lets a caller reach besides public addresses."""

    names: frozenset[str]
    networks: tuple[IPv4Network | IPv6Network, ...]

    def names_host(self, host: str) -> bool:
        return host.rstrip(".").lower() in self.names

    def has(self, address: Address) -> bool:
        return any(_really(address) in network for network in self.networks)


def may_connect(host: str, address: str, caller: Caller = HTTP_CALL) -> bool:
    """Whether a connection to `address`, which `host` resolved to, is permitted."""
    if caller.allowed.names_host(host):
        return True
    really = _really(ip_address(address))
    return is_public(really) or caller.allowed.has(really)


def is_public(address: Address) -> bool:
    """Whether it is an ordinary address of the public internet."""
    address = _really(address)
    if isinstance(address, IPv6Address) and address not in GLOBAL_UNICAST:
        return False
    if address.is_multicast or address.is_reserved or address.is_unspecified or not address.is_global:
        return False
    return not any(address in network for network in SPECIAL)


def _really(address: Address) -> Address:
    """The IPv4 address that an IPv6 address stands for: IPv4-mapped, or translated by a NAT64 gateway."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address in NAT64:
            return IPv4Address(int(address) & 0xFFFFFFFF)
    return address


@cache
def _allowed(text: str) -> Allowed:
    names: set[str] = set()
    networks: list[IPv4Network | IPv6Network] = []
    for entry in filter(None, (part.strip() for part in text.split(","))):
        try:
            networks.append(ip_network(entry))
        except ValueError:
            names.add(entry.rstrip(".").lower())
    return Allowed(frozenset(names), tuple(networks))
