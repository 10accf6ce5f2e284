"""Servers with a separate connection for each user: no user sees another's lists."""

import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from conformance.upstream import FixtureServer
from harness.services.call_runner import AT_LOOPBACK, CallRunner
from toolbus_common.config import Server
from toolbus_common.contracts import UpstreamTokenQuery, UpstreamTokenReply
from toolbus_common.errors import UpstreamRefusedError
from toolbus_executor.credentials.oauth_token import Bearer
from toolbus_executor.upstreams.base import Described, UpstreamCallbacks
from toolbus_executor.upstreams.mcp.http import HttpUpstream
from toolbus_executor.upstreams.oauth.upstream import CONNECT, Authorized

PRIVATE = "test://watched-resource"


class Closed(HttpUpstream):
    """A connection to the fixture server, which requires no token itself."""

    def __init__(self, url: str, bearer: Bearer, callbacks: UpstreamCallbacks) -> None:
        super().__init__(url, {}, callbacks, AT_LOOPBACK, bearer=bearer)
        self._bearer = bearer

    async def open(self) -> Described:
        await self._bearer.needed()
        return await super().open()


@dataclass
class UserConnection:
    """A connection to a server with tokens of each user; `people` are the users with one."""

    server: FixtureServer
    connected: set[str] = field(default_factory=set)
    lister: str = "ann"  # "" in a query: the user whose connection lists
    client: CallRunner = field(default_factory=CallRunner)
    news: list[UpstreamCallbacks] = field(default_factory=list)

    async def token(self, query: UpstreamTokenQuery) -> UpstreamTokenReply:
        user = query.user or self.lister
        if user not in self.connected:
            return UpstreamTokenReply(reason="Nobody has connected.")
        return UpstreamTokenReply(token=f"of-{user}", ends=time.time() + 3600)

    def made(self, bearer: Bearer, callbacks: UpstreamCallbacks) -> HttpUpstream:
        self.news.append(callbacks)
        return Closed(self.server.url, bearer, callbacks)

    async def open(self, **oauth: Any) -> None:
        fields = {"url": self.server.url, "oauth": {"tokens": "user", **oauth}}
        declared = Server.model_validate(fields)
        await self.client.open(Authorized("s", declared, self.token, self.made, self.client.news))

    def methods(self) -> set[str]:
        """Return the methods that reached the server."""
        return set(self.server.seen()["methods"])


@pytest.fixture(scope="module", params=["modern", "legacy"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[FixtureServer]:
    with FixtureServer(
        tmp_path_factory.mktemp("fixture"), "--family", request.param
    ).running() as server:
        yield server


@pytest.fixture
async def connection(server: FixtureServer) -> AsyncIterator[UserConnection]:
    server.forget()
    connections = UserConnection(server, {"ann"})
    try:
        await connections.open()
        yield connections
    finally:
        await connections.client.close()


async def test_only_tools_are_listed_over_a_users_connection(connection: UserConnection) -> None:
    listing = connection.client.listing
    assert "test_echo" in {each.name for each in listing.tools}
    assert (listing.resources, listing.templates, listing.prompts) == ((), (), ())
    assert listing.failed == {}
    assert listing.capabilities["resources"] == {}
    assert "prompts" not in listing.capabilities
    assert not connection.methods() & {"resources/list", "resources/templates/list", "prompts/list"}


async def test_a_user_reads_a_resource_with_their_own_token(connection: UserConnection) -> None:
    connection.connected.add("bob")
    read = await connection.client.call(
        PRIVATE, {"uri": PRIVATE}, method="resources/read", user="bob"
    )
    assert read.last["contents"][0]["text"] == "Watched resource content"


async def test_a_user_cannot_subscribe_over_the_connection_of_another(
    connection: UserConnection,
) -> None:
    refused = await connection.client.call(
        PRIVATE, {"uri": PRIVATE}, method="resources/subscribe", user="bob"
    )
    assert isinstance(refused.error, UpstreamRefusedError)
    assert "read the resource again instead" in refused.error.reason
    assert connection.client.watched.names == frozenset()
    assert "resources/subscribe" not in connection.methods()


@pytest.mark.parametrize("what", ["watch", "follow"])
async def test_an_empty_subscription_is_accepted(connection: UserConnection, what: str) -> None:
    hear: Callable[[frozenset[str]], Any] = getattr(connection.client.upstream, what)
    await hear(frozenset())
    with pytest.raises(UpstreamRefusedError, match="separate connection"):
        await hear(frozenset({PRIVATE}))


async def test_notifications_of_a_users_connection_reach_no_other_user(
    connection: UserConnection,
) -> None:
    (listing,) = connection.news
    listing.on_notification("notifications/message", b'{"data":"for ann"}')
    assert connection.client.notifications == []
    listing.on_lists_changed()
    assert connection.client.changed.is_set()


async def test_a_user_who_connects_before_the_listing_user_gets_the_reason(
    server: FixtureServer,
) -> None:
    own = UserConnection(server, {"bob"}, lister="robot")
    try:
        await own.open(listing="robot")
        assert [each.name for each in own.client.listing.tools] == [CONNECT]
        result = await own.client.call(CONNECT, user="bob")
        assert "an operator configured" in result.text
        own.connected.add("robot")
        result = await own.client.call(CONNECT, user="bob")
        assert result.text == "You are connected. List the tools again."
        assert await own.client.upstream.wait_lost()
    finally:
        await own.client.close()


async def test_a_shared_connection_lists_everything_and_accepts_subscriptions(
    server: FixtureServer,
) -> None:
    own = UserConnection(server, {"ann"})
    try:
        await own.open(tokens="shared")
        assert PRIVATE in {each.name for each in own.client.listing.resources}
        watched = await own.client.call(PRIVATE, {"uri": PRIVATE}, method="resources/subscribe")
        assert watched.last in ({}, {"resultType": "complete"})
    finally:
        await own.client.close()
