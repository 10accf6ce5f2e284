"""SIEM sinks on the real stream, in the same way as in the audit service."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from harness.audit.events import bus_of
from toolbus_audit.siem.forwarder import EventStream
from toolbus_audit.siem.forwarders import Timing
from toolbus_audit.siem.registry import SinkRegistry
from toolbus_common.config import Sink
from toolbus_common.contracts.events.base import EVERY_EVENT, Event
from toolbus_common.egress import Allowed, Egress
from toolbus_common.egress.http_client import HttpClient
from toolbus_common.egress.resolver import CheckedResolver
from toolbus_common.egress.tls import SYSTEMS, Tls
from toolbus_common.nats.connection import Bus
from toolbus_common.nats.stream_reader import StreamEntry, created_at, read_from
from toolbus_common.nats.topology import EVENTS, EXPORTS
from toolbus_common.secrets import Secrets, stores_of
from toolbus_common.settings import Settings

AT_LOOPBACK = Egress(Allowed.of("127.0.0.0/8 localhost"))
# This pace retries soon, and sends unacknowledged events again.
PACE = Timing(first_retry=0.05, settle=60.0)
SECRETS = Secrets(stores_of({"TOKEN": "a token of the receiver"}))


def sink(url: str, **given: Any) -> Sink:
    """Return a sink that forwards all events from the oldest event on.

    `given` overrides its fields.
    """
    return Sink.model_validate({"url": url, "begin": "oldest", **given})


def stream_of(bus: Bus) -> EventStream:
    """Return the stream EVENTS in the form that the service reads."""

    async def when() -> str:
        return await created_at(bus.client, EVENTS)

    async def newest() -> int:
        return await bus.newest(EVENTS)

    async def read(first: int, maximum: int) -> list[StreamEntry]:
        return await read_from(bus.client, EVENTS, first, EVERY_EVENT, maximum)

    return EventStream(when, newest, read)


class MemoryStream:
    """A stream in memory. It can drop its oldest messages, and it can be created again."""

    def __init__(self) -> None:
        self.named = "1"
        self.kept: dict[int, StreamEntry] = {}

    def say(self, *events: Event) -> None:
        """Append a message for each event."""
        for event in events:
            line = msgspec.json.encode({"event": event.NAME, **msgspec.json.decode(event.encode())})
            sequence = max(self.kept, default=0) + 1
            self.kept[sequence] = StreamEntry(sequence, event.subject, line)

    def forget(self, *sequences: int) -> None:
        """Drop messages, in the same way as the age limit of the stream."""
        for each in sequences:
            del self.kept[each]

    def recreate(self) -> None:
        """Replace the stream with an empty stream of the same name."""
        self.named, self.kept = f"{self.named}1", {}

    def stream(self) -> EventStream:
        """Return the stream in the form that a sink reads."""

        async def when() -> str:
            return self.named

        async def newest() -> int:
            return max(self.kept, default=0)

        async def read(first: int, maximum: int) -> list[StreamEntry]:
            return [each for sequence, each in self.kept.items() if sequence >= first][:maximum]

        return EventStream(when, newest, read)


@asynccontextmanager
async def running_sinks(
    settings: Settings,
    declared: Mapping[str, Sink],
    holder: str = "one",
    *,
    tls: Tls = SYSTEMS,
    pace: Timing = PACE,
    stream: EventStream | None = None,
) -> AsyncIterator[SinkRegistry]:
    """Run the sinks of one audit replica with the bus permissions of audit."""
    resolver = CheckedResolver(AT_LOOPBACK, tls_to_public=True)
    poster = HttpClient(resolver, tls)
    sinks = SinkRegistry(lambda: declared, poster, lambda _: False, SECRETS, holder, pace)
    async with (
        bus_of("audit", settings) as bus,
        sinks.forwarding(await bus.bucket(EXPORTS), stream or stream_of(bus)),
    ):
        yield sinks
    resolver.close()
