"""The HTTP listener for agents and browsers, with its limits from the settings."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from toolbus_common.concurrency import in_background
from toolbus_common.errors import UnavailableError
from toolbus_common.http_server.acceptor import Handshake
from toolbus_common.http_server.limits import Limits
from toolbus_common.http_server.listener import Listener
from toolbus_common.http_server.proxy_addresses import Proxies
from toolbus_common.http_server.server_certificate import ServerCertificate
from toolbus_common.service.asgi_server import NotServedError, serving
from toolbus_ingress.settings import Settings

LISTENER = "agents"
CHECK_SECONDS = 30.0


def limits_of(settings: Settings) -> Limits:
    """Return the listener's limits."""
    return Limits(
        head_seconds=settings.head_timeout,
        body_seconds=settings.body_timeout,
        idle_seconds=settings.idle_timeout,
        write_seconds=settings.write_timeout,
        connections=settings.max_connections,
        per_address=settings.max_per_address,
        per_loopback=settings.max_per_loopback,
        proxies=Proxies.of(settings.trusted_proxies, settings.proxy_header),
    )


@asynccontextmanager
async def listening(app: Any, settings: Settings, handshake: Handshake) -> AsyncIterator[Listener]:
    """Listen and serve the application. On exit, requests in progress are completed first.

    Raises:
        UnavailableError: the port is taken.

    """
    host, port, limits = settings.http_host, settings.http_port, limits_of(settings)
    try:
        async with (
            _certificate_checked(handshake.certificate),
            serving(
                app, LISTENER, host, port, limits, settings.drain_seconds, handshake
            ) as listener,
        ):
            yield listener
    except NotServedError as error:
        reason = (
            f"Cannot listen on {host}:{port}: the port is probably in use. Choose another port."
        )
        raise UnavailableError(reason) from error


@asynccontextmanager
async def _certificate_checked(certificate: ServerCertificate | None) -> AsyncIterator[None]:
    """Read replaced files even if no client connects, so that the metrics are current."""
    if certificate is None:
        yield
        return

    async def check() -> None:
        while True:
            certificate.check(LISTENER)
            await asyncio.sleep(CHECK_SECONDS)

    async with in_background(check()):
        yield
