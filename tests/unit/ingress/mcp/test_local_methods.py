"""Methods that ingress answers itself: the handshake of a session."""

import json
from typing import Any, cast

from harness.builders.configurations import ConfigFeed, configured, listing_of
from toolbus_common.access.config_snapshot import ConfigView
from toolbus_common.contracts import ProtocolFamily
from toolbus_common.crypto.key_file import KEY_BYTES
from toolbus_common.nats.kv_bucket import Change
from toolbus_ingress.auth.request_context import Caller, RequestContext
from toolbus_ingress.catalog.list_context import ListSizeCounter
from toolbus_ingress.catalog.tool_catalog import Catalogue
from toolbus_ingress.mcp.call_handler import CallHandler
from toolbus_ingress.mcp.local_methods import SESSION, LocalMethods
from toolbus_ingress.protocol_versions import Request
from toolbus_ingress.sessions.sealed_claims import ClaimSealer
from toolbus_ingress.sessions.session_store import Sessions

ONE, OTHER = "a" * 64, "b" * 64


class Edge:
    """A server whose tool only the first of two keys sees, and the methods over it."""

    def __init__(self) -> None:
        directory = ConfigView()
        self.catalogue = Catalogue(directory)
        self.sessions = Sessions(ClaimSealer(b"k" * KEY_BYTES), lambda _message: None)
        self._methods = LocalMethods(
            self.catalogue, self.sessions, cast("CallHandler", None), cast("ListSizeCounter", None)
        )
        feed = ConfigFeed(directory.projection.apply_change)
        feed.declare(configured(servers={"s": {"url": "http://127.0.0.1:9/mcp"}}))
        feed.key("one", ONE, "*")
        feed.key("other", OTHER, "nothing")
        feed.loaded()
        self.offer({"logging": {}})

    def offer(self, capabilities: dict[str, Any]) -> None:
        listing = listing_of("s", "tool", capabilities=capabilities)
        self.catalogue.apply(Change("s", listing.encode(), 1))

    async def initialize(self, key_digest: str, version: str) -> tuple[dict[str, Any], str]:
        """Return the result and the session id of a handshake."""
        found = self.catalogue.holder(key_digest, ())
        assert found is not None
        context = RequestContext(Caller(key_digest, *found, ""), {}, {}, cast("Any", None))
        params = {"protocolVersion": version, "capabilities": {}}
        request = Request(b"1", "initialize", params, ProtocolFamily.LEGACY)
        answer = await self._methods.answer(context, request)
        result: dict[str, Any] = json.loads(answer.body)["result"]
        return result, dict(answer.headers)[SESSION].decode()


async def test_each_handshake_has_the_version_and_the_capabilities_that_its_key_sees() -> None:
    edge = Edge()
    for _ in range(2):
        seen, _ = await edge.initialize(ONE, "2025-11-25")
        hidden, _ = await edge.initialize(OTHER, "2025-11-25")
        older, _ = await edge.initialize(ONE, "2025-06-18")
        assert "logging" in seen["capabilities"]
        assert "logging" not in hidden["capabilities"]
        assert (seen["protocolVersion"], older["protocolVersion"]) == ("2025-11-25", "2025-06-18")


async def test_a_handshake_follows_the_catalogue() -> None:
    edge = Edge()
    before, _ = await edge.initialize(ONE, "2025-11-25")
    edge.offer({"logging": {}, "completions": {}})
    after, _ = await edge.initialize(ONE, "2025-11-25")
    assert "completions" not in before["capabilities"]
    assert "completions" in after["capabilities"]


async def test_equal_handshakes_create_different_sessions_of_their_own_key() -> None:
    edge = Edge()
    _, first = await edge.initialize(ONE, "2025-11-25")
    _, second = await edge.initialize(ONE, "2025-11-25")
    assert first != second
    assert edge.sessions.find(first.encode(), ONE) is not None
    assert edge.sessions.find(first.encode(), OTHER) is None
