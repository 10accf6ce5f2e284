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
    asking: ConnectFlow,  # noqa: ARG001 - it runs oauth, which creates the buckets
    far: OAuthServer,
    settings: Settings,
) -> AsyncIterator[Registered]:
    async with connection_store(settings) as store:
        yield Registered(store, far.issuer)


async def _move_server(asking: ConnectFlow, far: OAuthServer, docs: Resource, path: str) -> None:
    """Move the server, which invalidates an open link."""
    docs.names(far.issuer, path)
    await asking.declare(f"{docs.origin}{path}", tokens="user")


async def test_a_forgotten_client_registers_again_before_a_user_is_redirected(
    asking: ConnectFlow, far: OAuthServer, docs: Resource, registered: Registered
) -> None:
    await _move_server(asking, far, docs, "/first")
    assert (await asking.request()).link
    before = await registered.current()
    far.forget()
    await registered.change(made=0.0)
    await _move_server(asking, far, docs, "/second")
    assert "Connected" in (await asking.connected()).text
    assert (await registered.current()).id != before.id
    assert (await asking.request()).token


async def test_a_known_client_is_retained_and_verified_only_when_old(
    asking: ConnectFlow, far: OAuthServer, docs: Resource, registered: Registered
) -> None:
    async def tries(path: str) -> int:
        before = len(far.seen("refresh_token"))
        await _move_server(asking, far, docs, path)
        assert (await asking.request()).link
        return len(far.seen("refresh_token")) - before

    assert await tries("/first") == 0
    first = await registered.current()
    assert await tries("/young") == 0
    await registered.change(made=0.0)
    assert await tries("/old") == 1
    assert (await registered.current()).id == first.id
    await asking.connected()
    assert await tries("/vouched-for") == 0


async def test_a_forgotten_client_whose_token_cannot_be_renewed_connects_again(
    asking: ConnectFlow, far: OAuthServer, docs: Resource
) -> None:
    docs.names(far.issuer)
    await asking.declare(docs.url, tokens="user")
    await asking.connected()
    refused = sha256((await asking.request()).token.encode()).hexdigest()
    far.forget()
    assert (await asking.request(refused=refused)).link
    assert "Connected" in (await asking.connected()).text
    assert (await asking.request()).token


async def test_a_user_who_returns_to_a_forgotten_client_can_try_again(
    asking: ConnectFlow, far: OAuthServer, docs: Resource
) -> None:
    docs.names(far.issuer)
    await asking.declare(docs.url, tokens="user")
    sent = await asking.sent()
    back = redirected_back(sent)
    far.forget()
    page = await asking.walker.get(back)
    assert page.status == 502
    assert "registered for Toolbus" in page.text
    assert "Connected" in (await asking.connected()).text


async def test_a_client_secret_is_used_until_it_expires(
    asking: ConnectFlow, far: OAuthServer, docs: Resource, registered: Registered
) -> None:
    far.say(secret_seconds=3600)
    await _move_server(asking, far, docs, "/first")
    assert (await asking.request()).link
    first = await registered.current()
    assert time.time() < first.ends < time.time() + 3601
    await registered.change(ends=time.time() - 1)
    assert "Connected" in (await asking.connected()).text
    assert (await registered.current()).id != first.id


async def test_a_client_secret_that_expires_at_once_is_considered_permanent(
    asking: ConnectFlow, far: OAuthServer, docs: Resource, registered: Registered
) -> None:
    far.say(secret_seconds=1)
    await _move_server(asking, far, docs, "/first")
    link = (await asking.request()).link
    assert (await registered.current()).ends == 0.0
    assert (await asking.request()).link == link
