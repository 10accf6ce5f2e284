"""Servers each person has a separate connection to: what one sees there no other is shown."""

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
    """A connection to the fixture server, which asks for no token itself."""

    def __init__(self, url: str, bearer: Bearer, heard: UpstreamCallbacks) -> None:
        super().__init__(url, {}, heard, AT_LOOPBACK, bearer=bearer)
        self._shown = bearer

    async def open(self) -> Described:
        await self._shown.needed()
        return await super().open()


@dataclass
class Own:
    """A connection to a server with everybody's own tokens; `people` are those who have one."""

    server: FixtureServer
    people: set[str] = field(default_factory=set)
    lister: str = "ann"  # "" in a question: whose connection lists
    bench: CallRunner = field(default_factory=CallRunner)
    news: list[UpstreamCallbacks] = field(default_factory=list)

    async def token(self, asked: UpstreamTokenQuery) -> UpstreamTokenReply:
        user = asked.user or self.lister
        if user not in self.people:
            return UpstreamTokenReply(reason="Nobody has connected.")
        return UpstreamTokenReply(token=f"of-{user}", ends=time.time() + 3600)

    def made(self, bearer: Bearer, heard: UpstreamCallbacks) -> HttpUpstream:
        self.news.append(heard)
        return Closed(self.server.url, bearer, heard)

    async def open(self, **oauth: Any) -> None:
        fields = {"url": self.server.url, "oauth": {"tokens": "user", **oauth}}
        declared = Server.model_validate(fields)
        await self.bench.open(Authorized("s", declared, self.token, self.made, self.bench.news))

    def asked(self) -> set[str]:
        """The methods that reached the server."""
        return set(self.server.seen()["methods"])


@pytest.fixture(scope="module", params=["modern", "legacy"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[FixtureServer]:
    with FixtureServer(
        tmp_path_factory.mktemp("fixture"), "--family", request.param
    ).running() as made:
        yield made


@pytest.fixture
async def own(server: FixtureServer) -> AsyncIterator[Own]:
    server.forget()
    made = Own(server, {"ann"})
    try:
        await made.open()
        yield made
    finally:
        await made.bench.close()


async def test_of_one_persons_connection_tools_are_listed_and_nothing_else(own: Own) -> None:
    listing = own.bench.listing
    assert "test_echo" in {each.name for each in listing.tools}
    assert (listing.resources, listing.templates, listing.prompts) == ((), (), ())
    assert listing.failed == {}
    assert listing.capabilities["resources"] == {}
    assert "prompts" not in listing.capabilities
    assert not own.asked() & {"resources/list", "resources/templates/list", "prompts/list"}


async def test_a_person_reads_a_resource_with_a_token_of_their_own(own: Own) -> None:
    own.people.add("bob")
    read = await own.bench.call(PRIVATE, {"uri": PRIVATE}, method="resources/read", user="bob")
    assert read.last["contents"][0]["text"] == "Watched resource content"


async def test_nobody_watches_over_the_connection_of_another(own: Own) -> None:
    refused = await own.bench.call(
        PRIVATE, {"uri": PRIVATE}, method="resources/subscribe", user="bob"
    )
    assert isinstance(refused.error, UpstreamRefusedError)
    assert "read the resource again instead" in refused.error.reason
    assert own.bench.watched.names == frozenset()
    assert "resources/subscribe" not in own.asked()


@pytest.mark.parametrize("what", ["watch", "follow"])
async def test_news_of_nothing_are_asked_for_without_a_refusal(own: Own, what: str) -> None:
    hear: Callable[[frozenset[str]], Any] = getattr(own.bench.upstream, what)
    await hear(frozenset())
    with pytest.raises(UpstreamRefusedError, match="separate connection"):
        await hear(frozenset({PRIVATE}))


async def test_what_a_server_says_in_one_persons_connection_nobody_hears(own: Own) -> None:
    (listing,) = own.news
    listing.on_notification("notifications/message", b'{"data":"for ann"}')
    assert own.bench.notifications == []
    listing.on_lists_changed()
    assert own.bench.changed.is_set()


async def test_who_connects_before_the_one_who_lists_is_told_what_is_missing(
    server: FixtureServer,
) -> None:
    own = Own(server, {"bob"}, lister="robot")
    try:
        await own.open(listing="robot")
        assert [each.name for each in own.bench.listing.tools] == [CONNECT]
        result = await own.bench.call(CONNECT, user="bob")
        assert "an operator configured" in result.text
        own.people.add("robot")
        result = await own.bench.call(CONNECT, user="bob")
        assert result.text == "You are connected. List the tools again."
        assert await own.bench.upstream.wait_lost()
    finally:
        await own.bench.close()


async def test_a_shared_connection_lists_everything_and_is_watched(
    server: FixtureServer,
) -> None:
    own = Own(server, {"ann"})
    try:
        await own.open(tokens="shared")
        assert PRIVATE in {each.name for each in own.bench.listing.resources}
        watched = await own.bench.call(PRIVATE, {"uri": PRIVATE}, method="resources/subscribe")
        assert watched.last in ({}, {"resultType": "complete"})
    finally:
        await own.bench.close()
