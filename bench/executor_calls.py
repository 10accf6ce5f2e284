"""Count and time what one plain call costs the executor: call handler, adapter, connection.

A real HTTP upstream of the modern protocol family answers from another process, so the CPU time is
that of the executor alone: decoding of the admitted call, event encoding and the event loop
included. No load runs beside it, and calls follow each other, or `--concurrency` at a time.
"""

import argparse
import asyncio
import inspect
import re
import statistics
import subprocess
import sys
from collections import Counter
from time import process_time, time
from types import FrameType
from typing import Any

import msgspec
import uvloop

from echo_upstream import definitions
from toolbus_common.config import Server
from toolbus_common.contracts import CallAdmitted, CallResult, ProtocolFamily, ReplyMessage
from toolbus_common.egress import Allowed, Egress
from toolbus_common.messaging.event_publisher import EventPublisher
from toolbus_common.nats.connection import Envelope
from toolbus_executor.calls.call_handler import CallHandler
from toolbus_executor.transport.dialer import Dialer
from toolbus_executor.upstreams.base import Upstream, UpstreamCallbacks
from toolbus_executor.upstreams.listing import listed
from toolbus_executor.upstreams.mcp.http import HttpUpstream
from toolbus_executor.upstreams.protocol_families import create_in_families
from toolbus_executor.upstreams.sessions.separate_sessions import separation_of
from toolbus_executor.upstreams.subscriptions import Watched

_ID = re.compile(rb'"id":(\d+)')
_RESULT = b'{"content":[{"type":"text","text":"hello"}],"isError":false,"resultType":"complete"}'


class Answers(asyncio.Protocol):
    """The upstream: answers each request on a kept-alive connection."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Store the transport."""
        self._transport: Any = transport
        self._held = b""

    def data_received(self, data: bytes) -> None:
        """Answer the request once its body is complete; requests of the bench are small."""
        self._held += data
        head, separator, body = self._held.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
        if not separator or len(body) < length:
            return
        self._held = b""
        found = _ID.search(body)
        text = b'{"jsonrpc":"2.0","id":%b,"result":%b}' % (
            found[1] if found else b"null",
            _result_of(body),
        )
        self._transport.write(
            b"HTTP/1.1 200 OK\r\ndate: Mon, 23 Nov 2026 09:00:00 GMT\r\nserver: uvicorn\r\n"
            b"content-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(text), text)
        )


def _result_of(body: bytes) -> bytes:
    if b'"tools/call"' in body:
        return _RESULT
    if b'"tools/list"' in body:
        page = {"tools": definitions(0), "ttlMs": 0, "cacheScope": "private"}
    else:
        page = {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}}
    return msgspec.json.encode({**page, "resultType": "complete"})


async def _serve() -> None:
    server = await asyncio.get_running_loop().create_server(Answers, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


class Discarded:
    """The reply channel: checks the final reply."""

    address = "r"

    async def send(self, reply: ReplyMessage) -> None:
        """Check that the call succeeded."""
        assert isinstance(reply, CallResult), reply


class Handled:
    """A call handler connected to the upstream as the supervisor connects it."""

    def __init__(self, port: int) -> None:
        self.declared = Server(url=f"http://127.0.0.1:{port}/mcp", concurrency=100)
        self._events = EventPublisher(_published, None)  # type: ignore[arg-type]
        quiet = Watched(lambda: None)
        separation = separation_of("s", self.declared, asyncio.Semaphore(4))
        self.handler = CallHandler("s", self.declared, self._events, quiet, quiet, separation)
        self._separation = separation
        self.wire = _admitted().encode()

    async def open(self) -> None:
        """Connect and list."""
        way = Dialer(Egress(Allowed.of("127.0.0.0/8")))
        news = UpstreamCallbacks(lambda: None, lambda *_: None, _not_relisted)

        def make(declared: Server, own: UpstreamCallbacks) -> Upstream:
            return HttpUpstream(declared.url, {}, own, way, protocol=declared.protocol)

        upstream = create_in_families(self.declared, news, make, self._separation)
        listing = await listed("s", await upstream.open(), upstream.list_page)
        await self.handler.checks.learn(listing.tools)
        upstream.learn(listing.tools)
        self.handler.upstream = upstream

    async def call(self) -> None:
        """Decode and run one call, as it arrives over the bus."""
        await self.handler.run(CallAdmitted.decode(self.wire), _DISCARDED)

    async def calls(self, number: int, concurrency: int) -> None:
        """Run `number` calls, `concurrency` at a time."""

        async def in_turn() -> None:
            for _ in range(number // concurrency):
                await self.call()

        await asyncio.gather(*(in_turn() for _ in range(concurrency)))


_DISCARDED = Discarded()


async def _published(_envelope: Envelope) -> None:
    """Acknowledge an event at once."""


async def _not_relisted(_call: CallAdmitted) -> None:
    raise AssertionError


def _admitted() -> CallAdmitted:
    return CallAdmitted(
        call_id="c1", reply_to="r", server="s", tool="echo", customer="acme", key="bot",
        family=ProtocolFamily.MODERN, deadline=time() + 3600, charge=5, reserved=True, checked=(),
        traceparent=f"00-{'a' * 32}-{'b' * 16}-00", arguments=b'{"text":"hello"}',
    )  # fmt: skip


class Counted:
    """Python calls of a run, coroutine objects apart; a resumed coroutine counts as a call."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self._coroutines: Counter[tuple[Any, int]] = Counter()

    def __call__(self, frame: FrameType, event: str, _argument: Any) -> None:
        """Count one event of the profiler."""
        if event == "call":
            code = frame.f_code
            self.calls[f"{code.co_filename.rpartition('/')[2]}:{code.co_qualname}"] += 1
            if code.co_flags & inspect.CO_COROUTINE:
                self._coroutines[code, frame.f_lasti] += 1

    @property
    def coroutines(self) -> int:
        """The number of coroutine objects: each begins once, at its first instruction."""
        first: dict[Any, int] = {}
        for code, at in self._coroutines:
            first[code] = min(at, first.get(code, at))
        return sum(self._coroutines[code, at] for code, at in first.items())


async def _measure(port: int, options: argparse.Namespace) -> None:
    handled = Handled(port)
    await handled.open()
    await handled.calls(options.calls // 4, options.concurrency)
    counted = Counted()
    sys.setprofile(counted)
    await handled.calls(options.counted, 1)
    sys.setprofile(None)
    each = {name: number / options.counted for name, number in counted.calls.items()}
    print(f"Python calls: {sum(each.values()):.1f} a call")
    print(f"coroutine objects: {counted.coroutines / options.counted:.1f} a call")
    if options.profile:
        for name, number in sorted(each.items(), key=lambda item: -item[1]):
            if number > 0.1:
                print(f"  {number:5.1f}  {name}")
    seconds = []
    for _ in range(options.rounds):
        began = process_time()
        await handled.calls(options.calls, options.concurrency)
        seconds.append((process_time() - began) / options.calls * 1e6)
    print(f"CPU: {min(seconds):.1f} us a call (median {statistics.median(seconds):.1f})")


def main() -> None:
    """Start the upstream and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=4000, help="calls of a round")
    parser.add_argument("--counted", type=int, default=500, help="calls under the profiler")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--concurrency", type=int, default=1)
    parser.add_argument("--profile", action="store_true", help="print the calls by function")
    parser.add_argument("--serve", action="store_true", help="be the upstream")
    options = parser.parse_args()
    if options.serve:
        uvloop.run(_serve())
        return
    command = [sys.executable, __file__, "--serve"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as upstream:
        assert upstream.stdout is not None
        try:
            uvloop.run(_measure(int(upstream.stdout.readline()), options))
        finally:
            upstream.terminate()


if __name__ == "__main__":
    main()
