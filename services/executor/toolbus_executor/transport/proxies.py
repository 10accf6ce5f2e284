"""HTTP proxy of a target: the proxy of the server's configuration, or of the environment."""

import re
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_network
from urllib.parse import unquote

from toolbus_common.egress.addresses import LOOPBACK, kind_of
from toolbus_common.egress.url_target import EgressError, Target, target_of

DIRECT = "none"  # configured value: no proxy, even if the environment has one
_URL = re.compile(r"http://(?:(?P<user>[^/@]*)@)?(?P<authority>[^/@]+)/?")


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy and its credentials.

    `by_environment` is set if an environment variable configured it.
    """

    target: Target
    authorization: bytes = field(default=b"", repr=False)
    by_environment: bool = False


def proxy_for(target: Target, declared: str, environ: Mapping[str, str]) -> Proxy | None:
    """Return the proxy for a target; None for a direct connection. Raises `EgressError`."""
    if declared:
        return None if declared == DIRECT else _proxy(declared, by_environment=False)
    if target.is_local or (target.address is not None and kind_of(target.address) == LOOPBACK):
        return None
    url = _variable(environ, f"{target.scheme}_proxy") or _variable(environ, "all_proxy")
    if not url or _exempt(target, _variable(environ, "no_proxy")):
        return None
    return _proxy(url if "://" in url else f"http://{url}", by_environment=True)


def _variable(environ: Mapping[str, str], name: str) -> str:
    return environ.get(name) or environ.get(name.upper()) or ""


def _proxy(url: str, *, by_environment: bool) -> Proxy:
    match = _URL.fullmatch(url)
    if match is None:
        raise EgressError("its proxy is not http://host:port; correct it")
    try:
        target = target_of(f"http://{match['authority']}")
    except EgressError as error:
        raise EgressError(f"its proxy: {error}") from None
    user, authorization = match["user"], b""
    if user:
        secret = b64encode(unquote(user).encode())
        authorization = b"Proxy-Authorization: Basic %b\r\n" % secret
    return Proxy(target, authorization, by_environment)


def _exempt(target: Target, entries: str) -> bool:
    return any(_is_exempt_by(target, each) for each in entries.lower().replace(",", " ").split())


def _is_exempt_by(target: Target, entry: str) -> bool:
    if entry == "*":
        return True
    host, colon, port = entry.rpartition(":")
    if colon and port.isdecimal() and (":" not in host or host.endswith("]")):
        if int(port) != target.port:
            return False
        entry = host
    entry = entry.strip("[]")
    if target.address is not None:
        try:
            return target.address in ip_network(entry, strict=False)
        except ValueError:
            return False
    name = entry.removeprefix("*").removeprefix(".")
    return bool(name) and (target.host == name or target.host.endswith(f".{name}"))
