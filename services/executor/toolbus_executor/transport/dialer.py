"""The way to one server: its name resolved once, every address checked, that very one connected.

TLS is still verified for the name. Through a proxy it is the proxy that resolves names, so of the
server only what is written is checked here, and of the proxy everything.
"""

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from toolbus_common.egress import Egress, EgressError, Target, target_of
from toolbus_common.egress.policy import STRICT, RefusedError
from toolbus_common.egress.proxies import proxy_for
from toolbus_common.egress.resolver import Resolve, resolved
from toolbus_common.egress.tls import SYSTEMS, Tls
from toolbus_executor.identity.header import Identity
from toolbus_executor.transport.connect_tunnel import tunnelled

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Connected:
    """A socket that leads to the server.

    `name` is whom TLS must meet; None without TLS. `before` and `headers` are what a proxy wants
    in front of a request's path and among its headers.
    """

    socket: socket.socket
    context: ssl.SSLContext | None
    name: str | None
    before: bytes = b""
    headers: bytes = b""


@dataclass(frozen=True)
class Way:
    """How one server is reached. Without settings: directly, at public addresses only.

    `named` tells whether the operator named where it leads, each time that matters. `identity` is
    there where the server is told who calls.
    """

    egress: Egress = STRICT
    named: Callable[[], bool] = lambda: False
    proxy: str = ""
    tls: Tls = SYSTEMS
    environ: Mapping[str, str] = field(default_factory=dict)
    resolve: Resolve = resolved
    identity: Identity | None = None

    async def connected(self, url: str) -> Connected:
        """A new connection. Raises `EgressError` or `OSError`."""
        target = target_of(url)
        proxy = proxy_for(target, self.proxy, self.environ)
        self._check(target, [])
        context = self.tls.context if target.scheme == "https" else None
        name = target.host if context else None
        if proxy is None:
            return Connected(await self._dialled(target), context, name)
        opened = await self._dialled(proxy.target, checked=not proxy.by_environment)
        if context is None:
            before = f"{target.scheme}://{target.authority}".encode()
            return Connected(opened, None, None, before, proxy.authorization)
        await tunnelled(opened, target, proxy)
        return Connected(opened, context, name)

    async def addresses(self, url: str) -> list[str]:
        """Where it may be called by who connects alone. Raises `EgressError` or `OSError`."""
        target = target_of(url)
        return self._check(target, await self._found(target))

    async def _dialled(self, target: Target, *, checked: bool = True) -> socket.socket:
        found = await self._found(target)
        if checked:
            found = self._check(target, found)
        failure = OSError("no address")
        for address in found:
            try:
                return await _connected_to(address, target.port)
            except OSError as error:
                failure = error
        raise failure

    async def _found(self, target: Target) -> list[str]:
        try:
            return await self.resolve(target)
        except UnicodeError as error:
            raise EgressError("its host cannot be looked up; mend its name") from error

    def _check(self, target: Target, found: list[str]) -> list[str]:
        """What was found, if all of it may be called."""
        named = self.named()
        try:
            self.egress.check_written(target, named=named)
            return self.egress.judged(target, found, named=named) if found else []
        except RefusedError as error:
            told = {"host": target.host, "address": error.address, "kind": error.kind}
            log.warning("egress.refused", extra=told)
            raise


async def _connected_to(address: str, port: int) -> socket.socket:
    """A connection to an address: nothing is looked up any more."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.settimeout(0)  # the loop waits
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await asyncio.get_running_loop().sock_connect(made, (address, port))
    except BaseException:
        made.close()
        raise
    return made
