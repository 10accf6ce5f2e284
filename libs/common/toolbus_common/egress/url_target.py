"""Target of a URL (scheme, host, port), accepted in one spelling only (no I/O).

Some systems interpret 0177.1, 0x7f000001 and 2130706433 as 127.0.0.1. The egress check and the code
that connects must not interpret a host differently, so such spellings are rejected.
"""

import re
from ipaddress import ip_address
from typing import NamedTuple
from urllib.parse import urlsplit

from toolbus_common.egress.addresses import Address

PORTS = {"http": 80, "https": 443}
MAX_PORT = 65535
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_PLAIN = re.compile(r"(?:0|[1-9][0-9]{0,2})(?:\.(?:0|[1-9][0-9]{0,2})){3}")
_OTHER_SCHEMES = re.compile(r"^(?:grpc(?=s?://)|syslog\+(?:tls|tcp|udp)(?=://))", re.IGNORECASE)
LONGEST_NAME = 253


class EgressError(Exception):
    """The address is not permitted. The message is a clause with the reason and the fix."""


class Target(NamedTuple):
    """The scheme, host and port of a URL. `address` is set if the host is an IP address."""

    scheme: str
    host: str
    port: int
    address: Address | None

    @property
    def is_local(self) -> bool:
        """Whether the host is localhost or a subdomain, which DNS never resolves."""
        return self.host == "localhost" or self.host.endswith(".localhost")

    @property
    def authority(self) -> str:
        """The host and the port, in the form of a CONNECT request."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def target_of(url: str) -> Target:
    """Return the target of a URL. Raises `EgressError`."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise EgressError("its URL cannot be read; write https://host:port/path") from None
    if parts.scheme not in PORTS:
        raise EgressError("its URL is neither http nor https; use one of these schemes")
    if "@" in parts.netloc:
        raise EgressError("its URL contains credentials; put them into headers")
    if port == 0:
        raise EgressError("its URL names port 0; name another port")
    host, address = host_of(parts.netloc.removesuffix(f":{port}") if port else parts.netloc)
    return Target(parts.scheme, host, port or PORTS[parts.scheme], address)


def as_http(url: str) -> str:
    """Return an HTTP URL with the host and port of a gRPC or syslog URL."""
    return _OTHER_SCHEMES.sub("http", url)


def host_of(written: str) -> tuple[str, Address | None]:
    """Return the normalized host, and the IP address if the host is one. Raises `EgressError`."""
    text = written.lower().removesuffix(":")
    if text.startswith("["):
        return _ipv6_literal(text)
    host = text.removesuffix(".")
    labels = host.split(".")
    if _NUMBER.fullmatch(labels[-1]):
        if not _PLAIN.fullmatch(text):
            raise EgressError(
                "its host is a number in an ambiguous spelling; write it as 192.0.2.1"
            )
        return text, _address(text)
    if len(host) > LONGEST_NAME or not all(map(_LABEL.fullmatch, labels)):
        raise EgressError(
            "its host is not a name of letters, digits, '-' and '.'; write an international name "
            "as xn--…"
        )
    return host, None


def _ipv6_literal(text: str) -> tuple[str, Address | None]:
    inner = text[1:-1]
    if not text.endswith("]") or "%" in inner or ":" not in inner:
        raise EgressError(
            "its host is not an IPv6 address; write it as [2001:db8::1], without a zone"
        )
    address = _address(inner)
    return str(address), address


def _address(text: str) -> Address:
    try:
        return ip_address(text)
    except ValueError:
        raise EgressError("its host is not an IP address; correct it") from None
