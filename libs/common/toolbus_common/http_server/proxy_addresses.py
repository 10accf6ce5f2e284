"""The address of a request's client: the address of the peer, or the one a proxy reports."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
Pairs = Iterable[tuple[bytes, bytes]]

IPV6_CLIENT_PREFIX = 64  # an IPv6 client usually has a network of this size
FORWARDED, X_FORWARDED_FOR = "forwarded", "x-forwarded-for"
_FOR = re.compile(r'(?:^|;)\s*for\s*=\s*("[^"]*"|[^;\s]*)', re.IGNORECASE)
_WITH_PORT = re.compile(r"\[([^\]]*)\](?::\d+)?|([^:]*):\d+")


@dataclass(frozen=True, slots=True)
class Proxies:
    """The proxies that an operator trusts, and the header in which they report the client."""

    networks: tuple[Network, ...] = ()
    header: bytes = X_FORWARDED_FOR.encode()

    @classmethod
    def of(cls, listed: str, header: str = X_FORWARDED_FOR) -> "Proxies":
        """Return the proxies of a setting, separated by commas or blanks. Raises `ValueError`."""
        return cls(tuple(map(ip_network, listed.replace(",", " ").split())), header.encode())

    def cover(self, address: str) -> bool:
        """Return whether an address belongs to a trusted proxy."""
        found = parsed(address)
        return found is not None and any(found in network for network in self.networks)

    def client_of(self, peer: str, headers: Pairs) -> str:
        """Return the client's address: the last hop that is not a trusted proxy.

        The hops before it are unverified. If the header is missing or malformed, the address of the
        proxy is returned.
        """
        lines = [value.decode("latin-1") for name, value in headers if name == self.header]
        for hop in reversed(",".join(lines).split(",")):
            address = parsed(_named(hop) if self.header == FORWARDED.encode() else hop)
            if address is None:
                return peer
            if not any(address in network for network in self.networks):
                return str(address)
        return peer


@lru_cache(maxsize=4096)  # each connection needs its peer's address several times
def parsed(text: str) -> Address | None:
    """Return the address in a text, with or without a port; None if the text is invalid.

    An IPv4-mapped address becomes an IPv4 address.
    """
    text = text.strip()
    match = _WITH_PORT.fullmatch(text)
    try:
        found = ip_address((match[1] or match[2]) if match else text)
    except ValueError:
        return None
    mapped = found.ipv4_mapped if isinstance(found, IPv6Address) else None
    return mapped or found


def bounded_as(address: str) -> str:
    """Return the key under which an address is counted.

    The key is the address itself, or the /64 network of an IPv6 address.
    """
    found = parsed(address.partition("%")[0])
    if isinstance(found, IPv6Address) and not found.is_loopback:
        return str(ip_network((found, IPV6_CLIENT_PREFIX), strict=False))
    return str(found) if found is not None else address


def is_loopback(address: str) -> bool:
    """Return whether an address is a loopback address."""
    found = parsed(address)
    return found is not None and found.is_loopback


def _named(element: str) -> str:
    """Return the value of `for` in one element of a Forwarded header (RFC 7239)."""
    match = _FOR.search(element)
    return match[1].strip('"') if match else ""
