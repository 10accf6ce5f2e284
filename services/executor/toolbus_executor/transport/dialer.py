"""Dialer of one server. It resolves the name once, and checks each address before it connects.

TLS is verified for the server's name. A proxy resolves the server's name itself. In that case the
dialer checks the host as it is configured, and the resolved address of the proxy.
"""

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from toolbus_common.egress import Egress, EgressError, Target, target_of
from toolbus_common.egress.policy import STRICT, RefusedError
from toolbus_common.egress.resolver import Resolve, resolved
from toolbus_common.egress.tls import SYSTEMS, Tls
from toolbus_executor.identity.header import Identity
from toolbus_executor.transport.connect_tunnel import open_tunnel
from toolbus_executor.transport.proxies import proxy_for

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class DialedSocket:
    """A socket that is connected to the server.

    `name` is the name that TLS verifies; None without TLS. A proxy for plain requests requires the
    prefix `before` of a request's URL, and the header lines `headers`.
    """

    socket: socket.socket
    context: ssl.SSLContext | None
    name: str | None
    before: bytes = b""
    headers: bytes = b""


@dataclass(frozen=True)
class Dialer:
    """Dialer of one server. Its defaults allow only direct connections to public addresses.

    `named` returns whether the operator configured the target; each check calls it. With
    `only_proxy_named`, `named` applies only to the proxy, because the target is not the configured
    host. `identity` is set if the server receives the caller's identity.
    """

    egress: Egress = STRICT
    named: Callable[[], bool] = lambda: False
    proxy: str = ""
    tls: Tls = SYSTEMS
    environ: Mapping[str, str] = field(default_factory=dict)
    resolve: Resolve = resolved
    identity: Identity | None = None
    only_proxy_named: bool = False

    def to_other_hosts(self) -> "Dialer":
        """Return a dialer for hosts that the operator has not named, without the certificate."""
        tls = Tls(self.tls.extra, self.tls.ca)
        return replace(self, tls=tls, identity=None, only_proxy_named=True)

    async def connected(self, url: str) -> DialedSocket:
        """Open a new connection. Raises `EgressError` or `OSError`."""
        target = target_of(url)
        proxy = proxy_for(target, self.proxy, self.environ)
        self._check(target, [])
        context = self.tls.context if target.scheme == "https" else None
        name = target.host if context else None
        if proxy is None:
            return DialedSocket(await self._dial(target), context, name)
        proxied = await self._dial(
            proxy.target, checked=not proxy.by_environment, named=self.named()
        )
        if context is None:
            before = f"{target.scheme}://{target.authority}".encode()
            return DialedSocket(proxied, None, None, before, proxy.authorization)
        await open_tunnel(proxied, target, proxy)
        return DialedSocket(proxied, context, name)

    async def addresses(self, url: str) -> list[str]:
        """Return the addresses of a URL's host. All of them are allowed.

        Raises `EgressError` or `OSError`.
        """
        target = target_of(url)
        return self._check(target, await self._resolve(target))

    async def _dial(
        self, target: Target, *, checked: bool = True, named: bool = False
    ) -> socket.socket:
        found = await self._resolve(target)
        if checked:
            found = self._check(target, found, named=named)
        failure = OSError("no address")
        for address in found:
            try:
                return await _connect_to(address, target.port)
            except OSError as error:
                failure = error
        raise failure

    async def _resolve(self, target: Target) -> list[str]:
        try:
            return await self.resolve(target)
        except UnicodeError as error:
            raise EgressError("its host name is invalid; correct it") from error

    def _check(self, target: Target, found: list[str], *, named: bool = False) -> list[str]:
        """Return the addresses. Raise `RefusedError` if the host or any address is not allowed.

        `named` means that the operator has named this host, even if it is not the configured one.
        """
        named = named or (not self.only_proxy_named and self.named())
        try:
            self.egress.check_written(target, named=named)
            return self.egress.check_addresses(target, found, named=named) if found else []
        except RefusedError as error:
            fields = {"host": target.host, "address": error.address, "kind": error.kind}
            log.warning("egress.denied", extra=fields)
            raise


async def _connect_to(address: str, port: int) -> socket.socket:
    """Return a socket that is connected to this address."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    connection = socket.socket(family, socket.SOCK_STREAM)
    try:
        connection.settimeout(0)  # non-blocking, for the event loop
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await asyncio.get_running_loop().sock_connect(connection, (address, port))
    except BaseException:
        connection.close()
        raise
    return connection
