"""Events for plugins at the point `on_event`: copies of the stream, in batches, at least once.

The position of each plugin is stored like that of a sink. A plugin that does not answer receives
its events later; it delays no other plugin, and no event.
"""

import asyncio
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from time import time
from typing import Any, Final

import msgspec

from toolbus_audit.siem.base import SinkError
from toolbus_audit.siem.forwarder import EventStream
from toolbus_audit.siem.forwarders import Forwarders, Receiver, Timing
from toolbus_audit.siem.records import Record
from toolbus_common.config.plugins import Plugin
from toolbus_common.contracts import CheckedCall
from toolbus_common.nats.kv_bucket import Bucket
from toolbus_common.plugins.decisions import Decision, contains
from toolbus_common.plugins.requests import (
    PluginFaultError,
    PluginRequests,
    TooLargeError,
    details_of,
)

POINT: Final = "on_event"
BATCH_BYTES = 512 * 1024
MAX_THREADS = 8
PREFIX = "plugin."
_decode = msgspec.json.Decoder(dict[str, Any]).decode
_NAMES = ("event", "id", "at", "customer", "call_id", "key", "server", "tool")
_Sent = tuple[Record, dict[str, Any]]  # an event, and what the plugin sees of it


class Feed(msgspec.Struct, frozen=True):
    """The events of a plugin, selected like those of a sink."""

    plugin: Plugin
    begin: str = "now"
    format: str = "jsonl"

    def wants(self, _event: str, customer: str) -> bool:
        """Return whether the plugin may receive events of a customer."""
        return not self.plugin.customers or customer in self.plugin.customers


@dataclass(slots=True)
class PluginTransport:
    """Requests to one plugin, each with a batch of events."""

    name: str
    plugin: Plugin
    requests: PluginRequests
    threads: Executor
    _sent: int = 0

    async def send(self, records: Sequence[Record]) -> list[Record]:
        """Send the records in the scope of the plugin, and return those that cannot be sent.

        Raises `SinkError` without an answer.
        """
        loop = asyncio.get_running_loop()
        batches, rejected = await loop.run_in_executor(self.threads, self._batches, records)
        for batch in batches:
            call = CheckedCall(
                call_id=f"events.{secrets.token_hex(12)}", customer="", key="", server="", tool="",
                deadline=time() + 2 * self.plugin.timeout,
            )  # fmt: skip
            content = {"events": [event for _, event in batch]}
            try:
                await self.requests.ask(self.name, self.plugin, POINT, call, content)
            except TooLargeError:
                rejected += [record for record, _ in batch]  # one, as a batch has a limit
            except PluginFaultError as fault:
                raise SinkError(str(fault)) from None
        return rejected

    def mark_sent(self, sequence: int) -> None:
        """Record that all messages up to `sequence` were answered."""
        self._sent = sequence

    def delivered_until(self) -> int:
        """Return the sequence up to which all messages were answered."""
        return self._sent

    async def close(self) -> None:
        """Do nothing: the connection is that of the service."""

    def _batches(self, records: Sequence[Record]) -> tuple[list[list[_Sent]], list[Record]]:
        """Return the batches of readable records, and the unreadable records."""
        events, rejected = list[_Sent](), list[Record]()
        for record in records:
            try:
                event = _decode(record.body)
            except (msgspec.MsgspecError, ValueError, RecursionError):
                rejected.append(record)
                continue
            if self._is_in_scope(record, event):
                events.append((record, self._shown(event)))
        return [*_split(events, min(BATCH_BYTES, self.requests.max_bytes // 2))], rejected

    def _is_in_scope(self, record: Record, event: dict[str, Any]) -> bool:
        names = {each: str(event.get(each, "")) for each in ("customer", "key", "server", "tool")}
        return contains(self.plugin, Decision(POINT, "event", record.id, **names))

    def _shown(self, event: dict[str, Any]) -> dict[str, Any]:
        if self.plugin.receives(POINT):
            return event
        return {each: event[each] for each in _NAMES if each in event}


def _split(events: Iterable[_Sent], largest: int) -> Iterator[list[_Sent]]:
    """Yield batches of at most `largest` bytes; an event that is larger is one of its own."""
    batch, size = list[_Sent](), 0
    for record, event in events:
        length = len(record.body)
        if batch and size + length > largest:
            yield batch
            batch, size = [], 0
        batch.append((record, event))
        size += length
    if batch:
        yield batch


class PluginFeeds:
    """The feeds of the plugins with the point `on_event`, with one task each."""

    def __init__(self, requests: PluginRequests, holder: str, timing: Timing) -> None:
        self._requests = requests
        self._threads = ThreadPoolExecutor(MAX_THREADS, "feed")
        self._forwarders = Forwarders(self._configured, PREFIX, holder, timing, self._threads)

    def details(self) -> dict[str, str]:
        """Return why plugins do not receive events now, for `toolbus status`."""
        states = self._forwarders.states()
        return details_of({name: state.fault for name, state in states.items() if state.fault})

    def forwarding(self, bucket: Bucket, stream: EventStream) -> AbstractAsyncContextManager[None]:
        """Send events to the plugins while the context is entered."""

        def receiver(name: str, plugin: Plugin) -> Receiver:
            transport = PluginTransport(name, plugin, self._requests, self._threads)
            return Receiver(PREFIX + name, Feed(plugin), transport)

        return self._forwarders.running(bucket, stream, receiver)

    def _configured(self) -> Mapping[str, Plugin]:
        declared = self._requests.declared
        return {name: each for name, each in declared.items() if POINT in each.hooks}
