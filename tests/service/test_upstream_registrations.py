"""Registrations of the gateway at other authorization servers: forgotten there, and expired."""

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import pytest
from msgspec.structs import replace

from harness.oauth.protected_processes import OAuthServer, Resource
from harness.services.oauth_connections import ConnectFlow, connection_store, redirected_back
from toolbus_common.settings import Settings
from toolbus_oauth.storage.store import Store
from toolbus_oauth.upstreams.connections.records import Registration


@dataclass
class Registered:
    """The stored registration of the oauth service."""

    store: Store
    issuer: str

    async def current(self) -> Registration:
        found = await self.store.get(Registration, self.issuer)
        assert found is not None
        return found

    async def change(self, **changes: Any) -> None:
        await self.store.put(self.issuer, replace(await self.current(), **changes))


@pytest.fixture
async def registered(
    flow: ConnectFlow,  # noqa: ARG001 - it runs oauth, which creates the buckets
    oauth_server: OAuthServer,
    settings: Settings,
) -> AsyncIterator[Registered]:
    async with connection_store(settings) as store:
        yield Registered(store, oauth_server.issuer)


async def _move_server(
    flow: ConnectFlow, oauth_server: OAuthServer, docs: Resource, path: str
) -> None:
    """Move the server, which invalidates an open link."""
    docs.names(oauth_server.issuer, path)
    await flow.declare(f"{docs.origin}{path}", tokens="user")


async def test_a_forgotten_client_registers_again_before_a_user_is_redirected(
    flow: ConnectFlow, oauth_server: OAuthServer, docs: Resource, registered: Registered
) -> None:
    await _move_server(flow, oauth_server, docs, "/first")
    assert (await flow.request()).link
    before = await registered.current()
    oauth_server.forget()
    await registered.change(made=0.0)
    await _move_server(flow, oauth_server, docs, "/second")
    assert "Connected" in (await flow.connected()).text
    assert (await registered.current()).id != before.id
    assert (await flow.request()).token


async def test_a_known_client_is_retained_and_verified_only_when_old(
    flow: ConnectFlow, oauth_server: OAuthServer, docs: Resource, registered: Registered
) -> None:
    async def tries(path: str) -> int:
        before = len(oauth_server.seen("refresh_token"))
        await _move_server(flow, oauth_server, docs, path)
        assert (await flow.request()).link
        return len(oauth_server.seen("refresh_token")) - before

    assert await tries("/first") == 0
    first = await registered.current()
    assert await tries("/young") == 0
    await registered.change(made=0.0)
    assert await tries("/old") == 1
    assert (await registered.current()).id == first.id
    await flow.connected()
    assert await tries("/vouched-for") == 0


async def test_a_forgotten_client_whose_token_cannot_be_renewed_connects_again(
    flow: ConnectFlow, oauth_server: OAuthServer, docs: Resource
) -> None:
    docs.names(oauth_server.issuer)
    await flow.declare(docs.url, tokens="user")
    await flow.connected()
    refused = sha256((await flow.request()).token.encode()).hexdigest()
    oauth_server.forget()
    assert (await flow.request(rejected=refused)).link
    assert "Connected" in (await flow.connected()).text
    assert (await flow.request()).token


async def test_a_user_who_returns_to_a_forgotten_client_can_try_again(
    flow: ConnectFlow, oauth_server: OAuthServer, docs: Resource
) -> None:
    docs.names(oauth_server.issuer)
    await flow.declare(docs.url, tokens="user")
    sent = await flow.sent()
    back = redirected_back(sent)
    oauth_server.forget()
    page = await flow.walker.get(back)
    assert page.status == 502
    assert "deleted the registration of Toolbus" in page.text
    assert "Connected" in (await flow.connected()).text


async def test_a_client_secret_is_used_until_it_expires(
    flow: ConnectFlow, oauth_server: OAuthServer, docs: Resource, registered: Registered
) -> None:
    oauth_server.say(secret_seconds=3600)
    await _move_server(flow, oauth_server, docs, "/first")
    assert (await flow.request()).link
    first = await registered.current()
    assert time.time() < first.ends < time.time() + 3601
    await registered.change(ends=time.time() - 1)
    assert "Connected" in (await flow.connected()).text
    assert (await registered.current()).id != first.id


async def test_a_client_secret_that_expires_at_once_is_considered_permanent(
    flow: ConnectFlow, oauth_server: OAuthServer, docs: Resource, registered: Registered
) -> None:
    oauth_server.say(secret_seconds=1)
    await _move_server(flow, oauth_server, docs, "/first")
    link = (await flow.request()).link
    assert (await registered.current()).ends == 0.0
    assert (await flow.request()).link == link
