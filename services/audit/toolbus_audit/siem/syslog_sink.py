"""Events over syslog: TCP or TLS with octets counted, or UDP.

Syslog has no answers. So what was written to a connection counts as taken once the other side's
system has confirmed every byte and the connection has lived on for a while; what was written to
one that broke before is written again to the next. Over UDP what is lost is lost.
"""

import asyncio
import fcntl
import socket
import struct
import termios
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from functools import partial
from time import monotonic
from urllib.parse import urlsplit

from toolbus_audit.delivery.http_client import Poster, PostError
from toolbus_audit.siem.base import SinkError
from toolbus_audit.siem.records import Record
from toolbus_audit.siem.rfc5424 import framed, message_of
from toolbus_common.config import Sink
from toolbus_common.egress import EgressError, Target, as_http, target_of

WAIT_SECONDS = 15.0  # for a connection, and for a sink that reads slowly
SETTLE_SECONDS = 3.0
LARGEST_DATAGRAM = 65_000


class _Way:
    """Where a sink is, checked anew for every connection."""

    def __init__(
        self, sink: Sink, poster: Poster, threads: Executor, named: Callable[[], bool]
    ) -> None:
        self._threads = threads
        self._url = sink.url
        self._poster = poster
        self._named = named
        self.secure = sink.transport == "tls"

    async def found(self) -> tuple[Target, list[str]]:
        """The target and its addresses. Raises `SinkError`."""
        try:
            target = self._target()
            looked_up = partial(self._poster.addresses, target, named=self._named())
            loop = asyncio.get_running_loop()
            return target, await loop.run_in_executor(self._threads, looked_up)
        except (EgressError, PostError) as error:
            raise SinkError(str(error)) from error
        except OSError as error:
            raise SinkError(f"its name cannot be looked up ({type(error).__name__})") from error

    def _target(self) -> Target:
        """As of a URL; with TLS it may be public, and without it may not."""
        target = target_of(as_http(self._url))
        scheme = "https" if self.secure else "http"
        return target._replace(scheme=scheme, port=urlsplit(self._url).port or target.port)


class StreamOutlet:
    """One connection, made when there is something to tell."""

    def __init__(
        self,
        sink: Sink,
        poster: Poster,
        threads: Executor,
        *,
        named: Callable[[], bool],
        host: str,
        settle: float = SETTLE_SECONDS,
    ) -> None:
        self._way = _Way(sink, poster, threads, named)
        self._tls = poster.tls
        self._host = host
        self._settle = settle
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._written: deque[tuple[float, int]] = deque()
        self._taken = 0

    async def send(self, records: Sequence[Record]) -> list[Record]:
        """Write them; none is refused. Raises `SinkError`."""
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                writer = self._writer or await self._connect()
                writer.writelines(framed(message_of(each, self._host)) for each in records)
                await writer.drain()
        except (OSError, TimeoutError, ValueError) as error:
            raise SinkError(f"it cannot be reached ({type(error).__name__})") from error
        return []

    def sent(self, sequence: int) -> None:
        """Note what was written by now."""
        if self._writer is None:  # nothing of it was wanted, and nothing is under way
            self._taken = sequence
        else:
            self._written.append((monotonic(), sequence))

    def taken(self) -> int:
        """What was written long enough ago. Raises `SinkError` when the connection is lost."""
        if self._reader is not None and (self._reader.at_eof() or self._reader.exception()):
            raise SinkError("it closed the connection")
        if self._written and self._unconfirmed() == 0:
            settled = monotonic() - self._settle
            while self._written and self._written[0][0] <= settled:
                self._taken = self._written.popleft()[1]
        return self._taken

    async def close(self) -> None:
        """Leave; what is not settled is written again to the next connection."""
        writer, self._reader, self._writer = self._writer, None, None
        self._written.clear()
        if writer is not None:
            writer.close()
            with suppress(OSError, TimeoutError):
                async with asyncio.timeout(WAIT_SECONDS / 5):
                    await writer.wait_closed()

    async def _connect(self) -> asyncio.StreamWriter:
        target, addresses = await self._way.found()
        try:
            context = self._tls.context if self._way.secure else None
        except EgressError as error:
            raise SinkError(str(error)) from error
        name = target.host if context is not None else None
        failure: OSError = OSError("no address")
        for address in addresses:
            try:
                self._reader, self._writer = await asyncio.open_connection(
                    address, target.port, ssl=context, server_hostname=name
                )
            except OSError as error:
                failure = error
            else:
                return self._writer
        raise failure

    def _unconfirmed(self) -> int:
        """Bytes that are not with the other side's system yet."""
        assert self._writer is not None  # noqa: S101 - only what was written is asked after
        waiting = self._writer.transport.get_write_buffer_size()
        told: socket.socket | None = self._writer.get_extra_info("socket")
        if told is None:
            return 1
        counted = fcntl.ioctl(told.fileno(), termios.TIOCOUTQ, struct.pack("i", 0))
        return waiting + int(struct.unpack("i", counted)[0])


class DatagramOutlet:
    """Datagrams: nobody knows whether they arrive."""

    def __init__(
        self,
        sink: Sink,
        poster: Poster,
        threads: Executor,
        *,
        named: Callable[[], bool],
        host: str,
    ) -> None:
        self._threads = threads
        self._way = _Way(sink, poster, threads, named)
        self._host = host
        self._taken = 0

    async def send(self, records: Sequence[Record]) -> list[Record]:
        """Send them; which are too long for a datagram. Raises `SinkError`."""
        target, addresses = await self._way.found()
        fit = {each: message_of(each, self._host) for each in records}
        try:
            sending = partial(_sent, addresses[0], target.port, list(fit.values()))
            await asyncio.get_running_loop().run_in_executor(self._threads, sending)
        except OSError as error:
            raise SinkError(f"it cannot be reached ({type(error).__name__})") from error
        return [each for each, message in fit.items() if len(message) > LARGEST_DATAGRAM]

    def sent(self, sequence: int) -> None:
        """What was sent is done with."""
        self._taken = sequence

    def taken(self) -> int:
        """The last message sent."""
        return self._taken

    async def close(self) -> None:
        """Nothing is held open."""


def _sent(address: str, port: int, messages: list[bytes]) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as out:
        for message in messages:
            if len(message) <= LARGEST_DATAGRAM:
                out.sendto(message, (address, port))
