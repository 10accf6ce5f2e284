"""Call handler of executor over one upstream without a bus; its output is stored in lists."""

import asyncio
import json
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from time import time
from typing import Any

from conformance.upstream import TESTS, FixtureServer
from toolbus_common.config import Server
from toolbus_common.config.servers.isolation import Files
from toolbus_common.contracts import (
    CallAdmitted,
    CallError,
    CallResult,
    Event,
    InputRequired,
    Listing,
    ProtocolFamily,
    ReplyMessage,
)
from toolbus_common.contracts.events.encoded import EncodedEvent
from toolbus_common.egress import Allowed, Egress
from toolbus_common.messaging.event_publisher import EventPublisher
from toolbus_executor.calls.call_handler import CallHandler
from toolbus_executor.isolation.plan import Isolation
from toolbus_executor.transport.dialer import Dialer
from toolbus_executor.upstreams.base import Upstream, UpstreamCallbacks
from toolbus_executor.upstreams.listing import listed
from toolbus_executor.upstreams.mcp.http import HttpUpstream
from toolbus_executor.upstreams.mcp.stdio import StdioUpstream
from toolbus_executor.upstreams.subscriptions import Watched

# The egress of an operator who allows this machine's addresses.
AT_LOOPBACK = Dialer(Egress(Allowed.of("127.0.0.0/8 ::1")))


class RecordedEvents(EventPublisher):
    """An event publisher that stores the events in a list."""

    def __init__(self) -> None:
        self.producer = "0123abcd"
        self.published: list[Event] = []

    def publish(self, event: Event | EncodedEvent) -> None:
        """Store the event."""
        self.published.append(event.decoded() if isinstance(event, EncodedEvent) else event)


@dataclass
class ReplyRecorder:
    """The context of one call, and all its messages with the final reply."""

    frames: list[ReplyMessage] = field(default_factory=list)

    async def send(self, frame: ReplyMessage) -> None:
        """Store the reply message."""
        self.frames.append(frame)

    @property
    def last(self) -> Any:
        """The final result, decoded."""
        end = self.frames[-1]
        assert isinstance(end, CallResult | InputRequired), end
        return json.loads(end.body)

    @property
    def error(self) -> Any:
        """The error of a failed call."""
        end = self.frames[-1]
        assert isinstance(end, CallError), end
        return end.error

    @property
    def text(self) -> str:
        """The first text of a tool's result."""
        return str(self.last["content"][0]["text"])


class CallRunner:
    """A call handler over one upstream."""

    def __init__(self, **declared: Any) -> None:
        self.events = RecordedEvents()
        self.changed = asyncio.Event()
        self.notifications: list[tuple[str, Any]] = []
        self.watched = Watched(lambda: None)
        self.followed = Watched(lambda: None)
        server = Server(url="http://127.0.0.1", **declared)
        self.declared = server
        self.runner = CallHandler("s", server, self.events, self.watched, self.followed)
        self.dropped: list[str] = []  # kinds of messages that belong to no call
        self.news = UpstreamCallbacks(
            self.changed.set, self._hear, lambda _call: self._relist(), self.dropped.append
        )
        self.listing = Listing(server="s", state="ready")
        self.upstream: Upstream

    async def open(self, upstream: Upstream) -> None:
        """Connect and list, as the supervisor does."""
        self.upstream = upstream
        self.described = await upstream.open()
        await self._relist()
        self.runner.upstream = upstream

    async def call(self, tool: str, arguments: Any = None, **more: Any) -> ReplyRecorder:
        """Run one call to its end."""
        return await self.run(admitted(tool, arguments, **more), ReplyRecorder())

    async def run(self, call: CallAdmitted, answers: ReplyRecorder) -> ReplyRecorder:
        """Run a call to its end, and record its messages with the final reply."""
        reply = await self.runner.run(call, answers)
        assert reply is not None
        answers.frames.append(reply)
        return answers

    async def close(self) -> None:
        """Close the handler and the upstream."""
        self.runner.close()
        self.watched.close()
        self.followed.close()
        await self.upstream.close()

    @property
    def outcome(self) -> Any:
        """The last event."""
        return self.events.published[-1]

    def _hear(self, method: str, params: bytes) -> None:
        self.notifications.append((method, json.loads(params)))

    async def _relist(self) -> None:
        self.listing = await listed("s", self.described, self.upstream.list_page)
        await self.runner.checks.learn(self.listing.tools)
        self.upstream.learn(self.listing.tools)
        if self.runner.cache is not None:
            self.runner.cache.learn(self.listing.tools)


def admitted(tool: str, arguments: Any = None, **more: Any) -> CallAdmitted:
    """Return an admitted call."""
    fields: dict[str, Any] = {
        "call_id": "c1",
        "reply_to": "r",
        "server": "s",
        "tool": tool,
        "customer": "d",
        "key": "k",
        "family": ProtocolFamily.MODERN,
        "deadline": time() + 60,
        "traceparent": "00-" + "a" * 32 + "-" + "b" * 16 + "-01",
        "charge": 5,
        "checked": (),
        "arguments": json.dumps(arguments or {}).encode(),
    }
    return CallAdmitted(**fields | more)


def connected(
    kind: str, servers: dict[str, FixtureServer], news: UpstreamCallbacks, seen: Path
) -> Upstream:
    """Return an unopened upstream of a transport and family."""
    transport, _, family = kind.partition(" ")
    if transport == "stdio":
        python = [sys.executable, "-m", "fixture_server", "--stdio", "--family", family]
        environment = {**os.environ, "PYTHONPATH": str(TESTS)}
        held = Isolation(files=Files(read=(str(TESTS),), write=(str(seen.parent),)))
        return StdioUpstream([*python, "--seen", str(seen)], environment, "", news, held)
    servers[kind].forget()
    url = servers[kind].url
    url = url.replace("/mcp", "/sse") if kind == "sse" else url
    return HttpUpstream(url, {}, news, AT_LOOPBACK)


def input_responses(reply: ReplyRecorder, **answers: Any) -> str:
    """Return the input responses, each for the request whose method contains its name."""
    requests = reply.last["inputRequests"]
    found = {
        key: answer
        for key, question in requests.items()
        for word, answer in answers.items()
        if word in question["method"]
    }
    return json.dumps({"inputResponses": found, "requestState": reply.last["requestState"]})
