"""Toolbus registered at somebody else's authorization server: forgotten there, and ended."""

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
    """What the service keeps of its registration."""

    store: Store
    issuer: str

    async def seen(self) -> Registration:
        found = await self.store.get(Registration, self.issuer)
        assert found is not None
        return found

    async def change(self, **told: Any) -> None:
        await self.store.put(self.issuer, replace(await self.seen(), **told))


@pytest.fixture
async def kept(
    asking: ConnectFlow,  # noqa: ARG001
    far: OAuthServer,
    settings: Settings,
) -> AsyncIterator[Registered]:
    async with connection_store(settings) as store:
        yield Registered(store, far.issuer)


async def _another_place(asking: ConnectFlow, far: OAuthServer, docs: Resource, path: str) -> None:
    """The server moved: a link that is open leads there no more."""
    docs.names(far.issuer, path)
    await asking.declare(f"{docs.origin}{path}", tokens="user")


async def test_nobody_is_sent_as_a_client_that_was_forgotten_there(
    asking: ConnectFlow, far: OAuthServer, docs: Resource, kept: Registered
) -> None:
    await _another_place(asking, far, docs, "/first")
    assert (await asking.request()).link
    before = await kept.seen()
    far.forget()
    await kept.change(made=0.0)
    await _another_place(asking, far, docs, "/second")
    assert "Connected" in (await asking.connected()).text
    assert (await kept.seen()).id != before.id
    assert (await asking.request()).token


async def test_a_client_that_is_known_there_stays_the_same_and_is_tried_only_when_in_doubt(
    asking: ConnectFlow, far: OAuthServer, docs: Resource, kept: Registered
) -> None:
    async def tries(path: str) -> int:
        before = len(far.seen("refresh_token"))
        await _another_place(asking, far, docs, path)
        assert (await asking.request()).link
        return len(far.seen("refresh_token")) - before

    assert await tries("/first") == 0
    first = await kept.seen()
    assert await tries("/young") == 0
    await kept.change(made=0.0)
    assert await tries("/old") == 1
    assert (await kept.seen()).id == first.id
    await asking.connected()
    assert await tries("/vouched-for") == 0


async def test_where_a_token_cannot_be_renewed_for_that_its_person_is_asked_anew(
    asking: ConnectFlow, far: OAuthServer, docs: Resource
) -> None:
    docs.names(far.issuer)
    await asking.declare(docs.url, tokens="user")
    await asking.connected()
    refused = sha256((await asking.request()).token.encode()).hexdigest()
    far.forget()
    assert (await asking.request(rejected=refused)).link
    assert "Connected" in (await asking.connected()).text
    assert (await asking.request()).token


async def test_somebody_who_comes_back_to_a_forgotten_client_can_try_once_more(
    asking: ConnectFlow, far: OAuthServer, docs: Resource
) -> None:
    docs.names(far.issuer)
    await asking.declare(docs.url, tokens="user")
    sent = await asking.sent()
    back = redirected_back(sent)
    far.forget()
    page = await asking.walker.get(back)
    assert page.status == 502
    assert "deleted the registration of Toolbus" in page.text
    assert "Connected" in (await asking.connected()).text


async def test_a_secret_is_shown_for_as_long_as_it_lasts(
    asking: ConnectFlow, far: OAuthServer, docs: Resource, kept: Registered
) -> None:
    far.say(secret_seconds=3600)
    await _another_place(asking, far, docs, "/first")
    assert (await asking.request()).link
    first = await kept.seen()
    assert time.time() < first.ends < time.time() + 3601
    await kept.change(ends=time.time() - 1)
    assert "Connected" in (await asking.connected()).text
    assert (await kept.seen()).id != first.id


async def test_a_secret_that_would_be_over_at_once_is_not_taken_for_that(
    asking: ConnectFlow, far: OAuthServer, docs: Resource, kept: Registered
) -> None:
    far.say(secret_seconds=1)
    await _another_place(asking, far, docs, "/first")
    link = (await asking.request()).link
    assert (await kept.seen()).ends == 0.0
    assert (await asking.request()).link == link
