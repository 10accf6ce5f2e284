"""Open streams: they show what their key sees now, and end with the key or the session."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import time
from typing import Any, cast

import pytest

from harness.builders.configurations import ConfigFeed, configured, listing_of
from harness.waits import PATIENCE, until
from toolbus_common.access.config_snapshot import ConfigView
from toolbus_common.access.principal import EffectiveGrants
from toolbus_common.contracts import (
    ProtocolFamily,
    ServerNotification,
)
from toolbus_common.crypto.key_file import KEY_BYTES
from toolbus_common.http_server.protocol import GONE, LEFT
from toolbus_common.nats.kv_bucket import Change
from toolbus_common.nats.topology import CONFIGURATION
from toolbus_ingress.auth.request_context import Caller, RequestContext
from toolbus_ingress.catalog import tool_catalog as listing
from toolbus_ingress.catalog.tool_catalog import TTL_MS, Catalogue
from toolbus_ingress.mcp import notification_hub as notifications
from toolbus_ingress.mcp.call_handler import CallHandler
from toolbus_ingress.mcp.notification_hub import NotificationHub
from toolbus_ingress.sessions.event_log_store import EventLogStore
from toolbus_ingress.sessions.sealed_claims import ClaimSealer
from toolbus_ingress.sessions.session_store import Sessions
from toolbus_ingress.sessions.sse_writer import DisconnectWatch

KEY_DIGEST = "a" * 64


class Edge:
    """A catalogue of one server with two tools, and a notification hub over it."""

    def __init__(self) -> None:
        self.directory = ConfigView()
        self.catalogue = Catalogue(self.directory)
        self.sessions = Sessions(ClaimSealer(b"k" * KEY_BYTES), lambda _message: None)
        self.event_logs = EventLogStore()
        # A session's own stream sends no requests to servers.
        self.notifications = NotificationHub(
            self.catalogue, cast("CallHandler", None), self.event_logs
        )
        self.directory.projection.on_key.append(self.notifications.key_changed)
        self.sessions.on_ended = self.notifications.session_ended
        self.feed = ConfigFeed(self.directory.projection.apply_change)
        self.feed.declare(configured(servers={"s": {"url": "http://127.0.0.1:9/mcp"}}))
        self.grant("*")
        self.feed.loaded()
        self.offer("one", "two")

    def grant(self, *tools: str, revoked: bool = False) -> None:
        self.feed.key("bot", KEY_DIGEST, *tools, revoked=revoked)

    def offer(self, *tools: str, **more: Any) -> None:
        self.catalogue.apply(Change("s", listing_of("s", *tools, **more).encode(), 1))

    def ttl_ms(self) -> int:
        """Return how long a stateless client may cache its tools."""
        found = self.catalogue.holder(KEY_DIGEST, ())
        assert found is not None
        list_result = json.loads(
            self.catalogue.list_result(
                "tools/list", Caller(KEY_DIGEST, *found, ""), ProtocolFamily.MODERN
            )
        )
        assert list_result["cacheScope"] == "private"
        assert {tool["name"] for tool in list_result["tools"]} >= {"s__one"}
        return int(list_result["ttlMs"])

    def context(
        self, sent: list[dict[str, Any]], scope: dict[str, Any], version: str
    ) -> RequestContext:
        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        found = self.catalogue.holder(KEY_DIGEST, ())
        assert found is not None
        session = self.sessions.begin(KEY_DIGEST, version, {})
        return RequestContext(Caller(KEY_DIGEST, *found, ""), {}, scope, send, session)

    def tools(self, grants: EffectiveGrants | None = None) -> list[str]:
        found = self.catalogue.holder(KEY_DIGEST, ())
        assert found is not None
        raw = self.catalogue.list_body("tools/list", grants or found[1], "", ProtocolFamily.LEGACY)
        return [tool["name"] for tool in json.loads(raw)["tools"]]


class Stream:
    """A session's stream and everything sent on it."""

    def __init__(
        self, edge: Edge, scope: dict[str, Any] | None = None, version: str = "2025-11-25"
    ) -> None:
        self.sent: list[dict[str, Any]] = []
        self.scope = {} if scope is None else scope
        self.context = edge.context(self.sent, self.scope, version)

    @property
    def text(self) -> str:
        return b"".join(part.get("body", b"") for part in self.sent).decode()

    async def wait_for(self, what: str) -> None:
        await until(lambda: what in self.text, what)


@asynccontextmanager
async def served(edge: Edge, stream: Stream) -> AsyncIterator[asyncio.Task[None]]:
    """Serve the stream while this is entered; it must end by itself."""
    serving = asyncio.create_task(edge.notifications.serve_session_stream(stream.context))
    await stream.wait_for(": ")
    await asyncio.sleep(0)
    yield serving
    async with asyncio.timeout(PATIENCE):
        await serving
    assert stream.sent[-1]["more_body"] is False
    assert not edge.notifications._listeners
    assert GONE not in stream.scope


CHANGED = "notifications/tools/list_changed"


async def test_a_new_tool_is_notified() -> None:
    edge = Edge()
    stream = Stream(edge)
    async with served(edge, stream):
        edge.offer("one", "two", "three")
        await stream.wait_for(CHANGED)
        edge.notifications.close()


async def test_a_stream_sees_what_its_key_sees_now() -> None:
    edge = Edge()
    stream = Stream(edge)
    async with served(edge, stream):
        edge.grant("s__one")
        await stream.wait_for(CHANGED)
        assert edge.tools() == ["s__one"], "the old grants left nothing cached"
        edge.notifications.close()


async def test_a_change_that_a_key_does_not_see_is_not_notified() -> None:
    edge = Edge()
    edge.grant("s__one")
    stream = Stream(edge)
    async with served(edge, stream):
        edge.offer("one", "two", "three")
        edge.grant("s__one", "other__*")
        edge.notifications._compare()
        edge.notifications.close()
    assert CHANGED not in stream.text


async def test_a_stream_ends_with_its_key() -> None:
    edge = Edge()
    stream = Stream(edge)
    async with served(edge, stream):
        edge.grant("*", revoked=True)


async def test_a_stream_ends_with_its_session() -> None:
    edge = Edge()
    stream, other = Stream(edge), Stream(edge)
    async with served(edge, other):
        async with asyncio.timeout(PATIENCE):
            serving = asyncio.create_task(edge.notifications.serve_session_stream(stream.context))
            await stream.wait_for(": ")
            assert stream.context.session is not None
            edge.sessions.end(stream.context.session)
            await serving
        assert len(edge.notifications._listeners) == 1, "the other stream continues"
        edge.notifications.close()


async def test_an_open_stream_renews_its_subscriptions_each_time_and_stops_at_its_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(notifications, "RENEW_SECONDS", 0.0)
    edge, renewed = Edge(), list[str]()

    class Subscriptions:
        async def subscribe(self, _context: Any, _request: Any, uri: str) -> None:
            renewed.append(uri)

    edge.notifications._call_handler = cast("CallHandler", Subscriptions())
    stream = Stream(edge)
    session = stream.context.session
    assert session is not None
    edge.sessions.update(session, "subscribed", "demo://a")
    async with served(edge, stream):
        (listener,) = edge.notifications._listeners
        await until(lambda: len(renewed) >= 3, "three renewals")
        edge.sessions.end(session)
    await until(lambda: _is_cancelled(listener.renewal), "no further renewal")
    assert set(renewed) == {"demo://a"}


def _is_cancelled(renewal: asyncio.TimerHandle | asyncio.Task[None]) -> bool:
    return renewal.done() if isinstance(renewal, asyncio.Task) else renewal.cancelled()


@pytest.mark.parametrize("version", ["2024-11-05", "2025-03-26", "2025-11-25"])
async def test_a_resumable_stream_outlives_its_reader(version: str) -> None:
    edge = Edge()
    stream = Stream(edge, version=version)
    serving = asyncio.create_task(edge.notifications.serve_session_stream(stream.context))
    await until(lambda: GONE in stream.scope, "the reader")
    stream.scope.pop(GONE)()
    async with asyncio.timeout(PATIENCE):
        await serving
    assert len(edge.notifications._listeners) == (version != "2024-11-05")
    edge.notifications.close()
    assert not edge.notifications._listeners
    assert len(edge.event_logs) == 0


async def test_a_resumed_stream_has_the_messages_sent_without_a_reader() -> None:
    edge = Edge()
    stream = Stream(edge)
    serving = asyncio.create_task(edge.notifications.serve_session_stream(stream.context))
    await stream.wait_for("retry: ")
    stream.scope.pop(GONE)()
    await serving
    edge.offer("one", "two", "three")
    edge.notifications._compare()
    session = stream.context.session
    assert session is not None
    name = stream.text.partition("id: ")[2].partition("-")[0]
    event_log = edge.event_logs.find(session.sid, name)
    assert event_log is not None
    reader = event_log.read(1)
    number, message = await reader.next() or (0, b"")
    assert (number, json.loads(message)["method"]) == (2, CHANGED)
    edge.notifications.close()


async def test_a_reader_that_leaves_before_the_first_event_ends_the_stream() -> None:
    edge = Edge()
    async with served(edge, Stream(edge, {LEFT: True}, "2024-11-05")):
        pass


async def test_an_updated_resource_is_notified_to_its_subscribers() -> None:
    edge = Edge()
    stream, other = Stream(edge), Stream(edge)
    assert stream.context.session is not None
    edge.sessions.update(stream.context.session, "subscribed", "file:///a")
    async with served(edge, stream), served(edge, other):
        for params in (b'{"uri":"file:///a","x":1}', b"{", b"[]", b'{"uri":5}', b"{}"):
            edge.notifications.receive(
                ServerNotification(
                    server="s", method="notifications/resources/updated", params=params
                )
            )
        await stream.wait_for("resources/updated")
        edge.notifications.close()
    assert stream.text.count("resources/updated") == 1
    assert '"x":1' in stream.text
    assert "resources/updated" not in other.text


def updated(uri: str) -> ServerNotification:
    params = json.dumps({"uri": uri}).encode()
    return ServerNotification(server="s", method="notifications/resources/updated", params=params)


async def test_an_update_from_two_executors_is_notified_once_and_the_next_again() -> None:
    edge = Edge()
    stream = Stream(edge)
    assert stream.context.session is not None
    stream.context.session.uris |= {"test://one", "test://two"}
    async with served(edge, stream):
        edge.notifications.receive(updated("test://one"))
        edge.notifications.receive(updated("test://one"))
        edge.notifications.receive(updated("test://two"))
        await stream.wait_for("test://two")
        assert stream.text.count("test://one") == 1
        edge.notifications.receive(updated("test://one"))
        await until(lambda: stream.text.count("test://one") == 2, "the later change")
        edge.notifications.close()


async def test_more_updates_than_are_merged_are_notified_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(notifications, "MAX_MERGED", 3)
    edge = Edge()
    stream = Stream(edge)
    assert stream.context.session is not None
    uris = [f"test://{number}" for number in range(10)]
    stream.context.session.uris |= set(uris)
    async with served(edge, stream):
        for uri in uris:
            edge.notifications.receive(updated(uri))
        for uri in uris:
            await stream.wait_for(uri)
        edge.notifications.close()


async def test_an_answer_is_delivered_to_its_sessions_stream_only() -> None:
    edge = Edge()
    stream = Stream(edge)
    assert stream.context.session is not None
    async with served(edge, stream):
        assert not edge.notifications.deliver("another", b'{"id":1}')
        assert edge.notifications.deliver(stream.context.session.sid, b'{"id":2}')
        await stream.wait_for('data: {"id":2}')
        edge.notifications.close()
    assert not edge.notifications.deliver(stream.context.session.sid, b'{"id":3}')


def test_a_list_is_cached_at_most_as_long_as_its_servers_allow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 1_763_708_342.0
    monkeypatch.setattr(listing, "time", lambda: now)
    edge = Edge()
    assert edge.ttl_ms() == TTL_MS
    edge.offer("one", ttl_ms=1500, listed_at=now - 1.0)
    assert edge.ttl_ms() == 500
    edge.offer("one", ttl_ms=1500, listed_at=now - 2.0)
    assert edge.ttl_ms() == 0
    edge.offer("one", ttl_ms=0)
    assert edge.ttl_ms() == 0
    edge.offer("one", ttl_ms=3_600_000, listed_at=now)
    assert edge.ttl_ms() == TTL_MS


def test_an_unchanged_list_is_not_notified() -> None:
    edge = Edge()
    edge.offer("one", ttl_ms=3_600_000, listed_at=1.0)
    changes: list[None] = []
    edge.catalogue.on_change.append(lambda: changes.append(None))
    edge.offer("one", ttl_ms=3_600_000, listed_at=time())
    assert changes == []
    assert edge.ttl_ms() > 0
    edge.offer("one", "two", ttl_ms=1500, listed_at=time())
    assert changes == [None]


def test_a_cached_view_of_one_key_is_not_shown_to_another() -> None:
    edge = Edge()
    wide, narrow = EffectiveGrants((("*",),)), EffectiveGrants((("s__one",),))
    assert edge.tools(wide) == ["s__one", "s__two"]
    assert edge.tools(narrow) == ["s__one"]
    assert edge.tools(wide) == ["s__one", "s__two"]


def test_a_view_stays_cached_while_only_keys_change() -> None:
    edge = Edge()
    grants = EffectiveGrants((("*",),))
    view = edge.catalogue.list_body("tools/list", grants, "", ProtocolFamily.LEGACY)
    edge.grant("s__one")
    assert edge.catalogue.list_body("tools/list", grants, "", ProtocolFamily.LEGACY) is view
    edge.directory.projection.apply_change(Change(CONFIGURATION, None, 100))
    assert edge.tools(grants) == []


@pytest.mark.parametrize("before", [True, False])
def test_a_disconnect_is_noticed_once_before_or_after_the_work_started(*, before: bool) -> None:
    noticed: list[bool] = []
    scope: dict[str, Any] = {LEFT: True} if before else {}
    watch = DisconnectWatch(scope, lambda: noticed.append(True))
    if not before:
        scope.pop(GONE)()
    watch.stop()
    assert noticed == [True]
    assert GONE not in scope


def test_a_disconnect_after_the_response_cancels_nothing() -> None:
    scope: dict[str, Any] = {}
    DisconnectWatch(scope, lambda: pytest.fail("it was settled")).stop()
    assert scope == {}
