"""Oauth service as an OAuth client of upstreams, with an executor and a person's browser."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from harness.audit.events import bus_of
from harness.clients.form_browser import Page
from harness.engines.http_engine import redirect_of
from harness.services.authorization_service import BASE, STAFF, Server, ServiceBrowser, serving
from toolbus_common.contracts import UpstreamTokenQuery, UpstreamTokenReply
from toolbus_common.crypto.key_file import load_key
from toolbus_common.messaging.request_reply import RequestReply
from toolbus_common.nats.connection import Bus
from toolbus_common.nats.topology import CONNECTIONS
from toolbus_common.settings import Settings
from toolbus_oauth.storage.store import Store
from toolbus_oauth.upstreams.connections.envelope_encryption import Envelope

DOCUMENT = f"{BASE}/oauth/client.json"


@dataclass
class ConnectFlow:
    """The service, the executor's connection and a person's browser."""

    server: Server
    executor: RequestReply
    walker: ServiceBrowser = field(init=False)

    def __post_init__(self) -> None:
        self.walker = ServiceBrowser(self.server)

    @property
    def people(self) -> dict[str, Any]:
        """The configuration of the sign-in."""
        return STAFF

    async def request(self, user: str = "ann", **more: Any) -> UpstreamTokenReply:
        query = UpstreamTokenQuery(server="docs", user=user, **more)
        return await self.executor.request(query, UpstreamTokenReply, 60.0)

    async def declare(self, url: str, **oauth: Any) -> None:
        await self.server.declare(servers={"docs": {"url": url, "oauth": oauth}}, **self.people)

    async def signed_in(self, page: Page) -> Page:
        return await self.walker.signed_in(page)

    async def sent(self) -> Page:
        """Open a new connect link, and return the redirect to the authorization server."""
        reply = await self.request()
        assert reply.link, reply
        page = await self.walker.get(reply.link)
        if 'name="password"' in page.text:
            page = await self.signed_in(page)
        return await self.allowed(page)

    async def allowed(self, page: Page) -> Page:
        """Press the button of the connect page."""
        return await self.walker.post("/oauth/connect", ticket=page.ticket, answer="allow")

    async def connected(self) -> Page:
        return await self.walker.get(redirected_back(await self.sent()))


@asynccontextmanager
async def executor_connection(
    settings: Settings, operator: Bus, monkeypatch: pytest.MonkeyPatch, **environment: str
) -> AsyncIterator[tuple[Server, RequestReply]]:
    """Run the service, and yield it with the connection of an executor."""
    async with (
        serving(settings, operator, monkeypatch, **environment) as server,
        bus_of("executor", settings) as bus,
    ):
        yield server, RequestReply("executor", bus)


@asynccontextmanager
async def connection_store(settings: Settings) -> AsyncIterator[Store]:
    """Yield the store of upstream connections, opened with the key of the service."""
    async with bus_of("oauth", settings) as bus:
        seal = Envelope(load_key(settings.state_dir / "oauth-vault.key"))
        yield Store(await bus.bucket(CONNECTIONS), seal)


def redirected_back(sent: Page) -> str:
    """Follow the redirect of the authorization server back to the gateway."""
    assert sent.status == 303, sent.text
    return redirect_of(sent.location)
