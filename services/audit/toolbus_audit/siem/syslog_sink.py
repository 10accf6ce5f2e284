"""Syslog transports: TCP or TLS with octet counting, or UDP.

Syslog has no responses. On a connection, a message counts as delivered when the peer's kernel has
acknowledged all of its bytes and the connection has then stayed open for a few seconds. If the
connection breaks earlier, the message is sent again on the next connection. UDP datagrams may be
lost.
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
from dataclasses import replace
from functools import partial
from time import monotonic
from urllib.parse import urlsplit

from toolbus_audit.siem.base import SinkError
from toolbus_audit.siem.records import Record
from toolbus_audit.siem.rfc5424 import message_of, octet_counted
from toolbus_common.config import Sink
from toolbus_common.egress import EgressError, Target, as_http, target_of
from toolbus_common.egress.http_client import HttpClient
from toolbus_common.egress.resolver import CheckedResolver

WAIT_SECONDS = 15.0  # to connect, and to write to a slow sink
SETTLE_SECONDS = 3.0
LARGEST_DATAGRAM = 65_000


class _Destination:
    """Address of a sink, resolved and checked again for every connection."""

    def __init__(
        self, sink: Sink, resolver: CheckedResolver, is_operator_named: Callable[[], bool]
    ) -> None:
        self._url = sink.url
        self._resolver = resolver
        self._is_operator_named = is_operator_named
        self.secure = sink.transport == "tls"

    async def resolved(self) -> tuple[Target, list[str]]:
        """Return the target and its addresses. Raises `SinkError`."""
        try:
            target, named = self._target(), self._is_operator_named()
            return target, await self._resolver.addresses(target, operator_named=named)
        except EgressError as error:
            raise SinkError(str(error)) from error

    def _target(self) -> Target:
        """Return the target of the URL. Its scheme decides whether a public address is allowed."""
        target = target_of(as_http(self._url))
        scheme = "https" if self.secure else "http"
        return target._replace(scheme=scheme, port=urlsplit(self._url).port or target.port)


class StreamTransport:
    """Transport over one connection, opened when there is something to send."""

    def __init__(
        self,
        sink: Sink,
        http: HttpClient,
        *,
        is_operator_named: Callable[[], bool],
        host: str,
        settle: float = SETTLE_SECONDS,
    ) -> None:
        self._destination = _Destination(sink, http.resolver, is_operator_named)
        self._tls = replace(http.tls)  # HTTP connections add their protocol to the context
        self._host = host
        self._settle = settle
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._written: deque[tuple[float, int]] = deque()
        self._delivered = 0

    async def send(self, records: Sequence[Record]) -> list[Record]:
        """Write records and return an empty list: syslog rejects no record. Raises `SinkError`."""
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                writer = self._writer or await self._connect()
                writer.writelines(octet_counted(message_of(each, self._host)) for each in records)
                await writer.drain()
        except (OSError, TimeoutError, ValueError) as error:
            raise SinkError(f"it is unreachable ({type(error).__name__})") from error
        return []

    def mark_sent(self, sequence: int) -> None:
        """Record the message as written. It counts as delivered later."""
        if self._writer is None:  # no event of the message was selected, and nothing is in flight
            self._delivered = sequence
        else:
            self._written.append((monotonic(), sequence))

    def delivered_until(self) -> int:
        """Return the last message that was acknowledged and whose settling time is over.

        Raises `SinkError` if the connection is lost.
        """
        if self._reader is not None and (self._reader.at_eof() or self._reader.exception()):
            raise SinkError("it closed the connection")
        if self._written and self._unconfirmed() == 0:
            settled = monotonic() - self._settle
            while self._written and self._written[0][0] <= settled:
                self._delivered = self._written.popleft()[1]
        return self._delivered

    async def close(self) -> None:
        """Close the connection. Unconfirmed records are sent again on the next connection."""
        writer, self._reader, self._writer = self._writer, None, None
        self._written.clear()
        if writer is not None:
            writer.close()
            with suppress(OSError, TimeoutError):
                async with asyncio.timeout(WAIT_SECONDS / 5):
                    await writer.wait_closed()

    async def _connect(self) -> asyncio.StreamWriter:
        target, addresses = await self._destination.resolved()
        try:
            if self._destination.secure:
                await asyncio.to_thread(self._tls.check)  # loads the authorities
            context = self._tls.context if self._destination.secure else None
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
        """Return the number of bytes that the peer has not acknowledged yet."""
        assert self._writer is not None  # noqa: S101 - called only after a write
        waiting = self._writer.transport.get_write_buffer_size()
        connection: socket.socket | None = self._writer.get_extra_info("socket")
        if connection is None:
            return 1
        counted = fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, struct.pack("i", 0))
        return waiting + int(struct.unpack("i", counted)[0])


class DatagramTransport:
    """Transport over UDP, without confirmation."""

    def __init__(
        self,
        sink: Sink,
        http: HttpClient,
        threads: Executor,
        *,
        is_operator_named: Callable[[], bool],
        host: str,
    ) -> None:
        self._threads = threads
        self._destination = _Destination(sink, http.resolver, is_operator_named)
        self._host = host
        self._delivered = 0

    async def send(self, records: Sequence[Record]) -> list[Record]:
        """Send records and return the records that are too long for a datagram.

        Raises `SinkError`.
        """
        target, addresses = await self._destination.resolved()
        fit = {each: message_of(each, self._host) for each in records}
        try:
            sending = partial(_send_datagrams, addresses[0], target.port, list(fit.values()))
            await asyncio.get_running_loop().run_in_executor(self._threads, sending)
        except OSError as error:
            raise SinkError(f"it is unreachable ({type(error).__name__})") from error
        return [each for each, message in fit.items() if len(message) > LARGEST_DATAGRAM]

    def mark_sent(self, sequence: int) -> None:
        """Record the message as delivered, because datagrams are not confirmed."""
        self._delivered = sequence

    def delivered_until(self) -> int:
        """Return the last message sent."""
        return self._delivered

    async def close(self) -> None:
        """Do nothing: no connection is open."""


def _send_datagrams(address: str, port: int, messages: list[bytes]) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as out:
        for message in messages:
            if len(message) <= LARGEST_DATAGRAM:
                out.sendto(message, (address, port))
