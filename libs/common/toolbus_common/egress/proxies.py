"""Which proxy stands between, if any: a server's own, else the one of the environment. Pure."""

import re
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_network
from urllib.parse import unquote

from toolbus_common.egress.addresses import LOOPBACK, kind_of
from toolbus_common.egress.url_target import EgressError, Target, target_of

DIRECT = "none"  # declared: no proxy, whatever the environment says
_SPELT = re.compile(r"http://(?:(?P<user>[^/@]*)@)?(?P<place>[^/@]+)/?")


@dataclass(frozen=True, slots=True)
class Proxy:
    """Where it is and what it is told. `by_environment`: whoever started the service set it."""

    target: Target
    authorization: bytes = field(default=b"", repr=False)
    by_environment: bool = False


def proxy_for(target: Target, declared: str, environ: Mapping[str, str]) -> Proxy | None:
    """The proxy for a target; None to go there directly. Raises `EgressError`."""
    if declared:
        return None if declared == DIRECT else _proxy(declared, by_environment=False)
    if target.is_local or (target.address is not None and kind_of(target.address) == LOOPBACK):
        return None
    told = _told(environ, f"{target.scheme}_proxy") or _told(environ, "all_proxy")
    if not told or _exempt(target, _told(environ, "no_proxy")):
        return None
    return _proxy(told if "://" in told else f"http://{told}", by_environment=True)


def _told(environ: Mapping[str, str], name: str) -> str:
    return environ.get(name) or environ.get(name.upper()) or ""


def _proxy(url: str, *, by_environment: bool) -> Proxy:
    spelt = _SPELT.fullmatch(url)
    if spelt is None:
        raise EgressError("its proxy is no http://host:port; mend that")
    try:
        target = target_of(f"http://{spelt['place']}")
    except EgressError as error:
        raise EgressError(f"of its proxy: {error}") from None
    user, authorization = spelt["user"], b""
    if user:
        secret = b64encode(unquote(user).encode())
        authorization = b"Proxy-Authorization: Basic %b\r\n" % secret
    return Proxy(target, authorization, by_environment)


def _exempt(target: Target, told: str) -> bool:
    return any(_spared(target, each) for each in told.lower().replace(",", " ").split())


def _spared(target: Target, entry: str) -> bool:
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
