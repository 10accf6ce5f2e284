"""Additions to the NATS client: enforced TLS, and the beginning and end of subscriptions."""

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from random import sample
from typing import Any
from urllib.parse import urlsplit

from nats.aio.client import Client
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError

from toolbus_common.errors import BusDownError
from toolbus_common.nats.lame_duck.movable_client import MovableClient
from toolbus_common.tls_files import TlsFiles

log = logging.getLogger(__name__)

_ANSWERS = ("_INBOX.", "tb.reply.")
PAUSE_SECONDS = 0.2
NEVER = 86_400  # seconds
CLOSE_SECONDS = 5.0
LEAVE_SECONDS = 5.0  # for the last messages of a subscription


class TlsClient(MovableClient):
    """A client that connects with TLS only. It reads replaced certificate files again."""

    def __init__(self, files: TlsFiles) -> None:
        super().__init__()
        self._files = files

    @property
    def ssl_context(self) -> ssl.SSLContext:
        """The settings of the next connection."""
        return self._files.context

    async def _process_info(
        self,
        info: dict[str, Any],
        initial_connection: bool = False,  # noqa: FBT001, FBT002 - of the client
    ) -> None:
        """Refuse a connection without TLS before any credentials are sent."""
        if initial_connection and not info.get("tls_required"):
            raise NatsError(
                "the server requires no TLS, so the connection was refused; configure 'tls' at the "
                "server, or remove tls:// and TOOLBUS_NATS_CA, _CERT and _KEY"
            )
        await super()._process_info(info, initial_connection)


def shown_urls(urls: str) -> str:
    """Return URLs, separated by commas, without their users and passwords."""
    shown = []
    for url in urls.split(","):
        scheme, mark, rest = url.strip().partition("://")
        address = (rest if mark else scheme).rpartition("@")[2]
        shown.append(f"{scheme}{mark}{address}" if mark else address)
    return ",".join(shown)


def servers_of(urls: str) -> list[str]:
    """Return the URLs that commas separate, in random order.

    Raises `BusDownError`, whose message does not contain them.
    """
    found = [each.strip() for each in urls.split(",")]
    try:
        for each in found:
            _ = urlsplit(each if "://" in each else f"nats://{each}").port
    except ValueError:
        raise BusDownError(
            "TOOLBUS_NATS_URL is not valid; set nats://HOST:PORT or tls://HOST:PORT, several "
            "separated by commas, with percent-encoding in a user and password."
        ) from None
    return sample(found, len(found))


def client_of(files: TlsFiles | None) -> MovableClient:
    """Return an unconnected client."""
    return TlsClient(files) if files is not None else MovableClient()


def cannot_connect(urls: str, name: str, cause: Exception) -> BusDownError:
    """Return the error of a failed connection. NATS does not state why it rejects a client."""
    why = str(cause)
    if isinstance(cause, ConnectionResetError):
        why += "; NATS closes the connection when it rejects a user: check the seed file"
    return BusDownError(f"Cannot connect to NATS at {shown_urls(urls)} as {name}: {why}")


async def until_led(store: Callable[[], Awaitable[None]], seconds: float) -> None:
    """Store a message; retry for `seconds` while its stream has no leader that acknowledges it.

    `store` raises `LookupError` if there is no leader, and `BusDownError` with the cause
    `TimeoutError` if there is no acknowledgement. Raises `BusDownError`.
    """
    loop = asyncio.get_running_loop()
    due = loop.time() + seconds
    while True:
        try:
            return await store()
        except LookupError:
            if loop.time() + PAUSE_SECONDS > due:
                raise BusDownError(
                    "The stream EVENTS has no leader or does not exist; retry, or run "
                    "'toolbus provision'."
                ) from None
            await asyncio.sleep(PAUSE_SECONDS)
        except BusDownError as error:
            if loop.time() >= due or not isinstance(error.__cause__, TimeoutError):
                raise


def answerable(reply: str) -> bool:
    """Return whether a reply subject is a reply inbox, so that replying to it is safe."""
    return reply.startswith(_ANSWERS)


def bus_down(cause: Exception | None = None) -> BusDownError:
    """Return the error for a call that cannot be recorded because NATS is unreachable."""
    text = "The bus is down, so the call cannot be recorded and was not executed; retry."
    error = BusDownError(text)
    error.__cause__ = cause
    return error


async def closed(client: Client) -> None:
    """Close a client, and limit its wait for the server to end a TLS connection."""
    with suppress(TimeoutError):
        async with asyncio.timeout(CLOSE_SECONDS):
            await client.close()


def abandon(client: Client) -> None:
    """Close the transport of a failed connection attempt, which the client itself leaks."""
    transport: Any = client._transport  # noqa: SLF001 - the client has no public accessor
    if transport is not None:
        transport.close()


async def settled(client: Client, on_lost: list[Callable[[], None]]) -> None:
    """Wait until the server has registered all subscriptions made so far.

    After a reconnection, the client subscribes again. The function then waits for the server again.
    """
    while not (await _answered(client, on_lost) or client.is_closed):
        log.info("bus.not_settled")
        await asyncio.sleep(PAUSE_SECONDS)


async def left(
    client: Client,
    on_lost: list[Callable[[], None]],
    subscription: Subscription,
    seconds: float = LEAVE_SECONDS,
) -> None:
    """End a subscription after its handler has received what the server has sent.

    The client's `unsubscribe` drops these messages. The server has already selected this member of
    a queue for them, so no other replica would receive them. Without a connection, the client
    does not subscribe again when it has reconnected.
    """
    with suppress(NatsError, TimeoutError):
        async with asyncio.timeout(seconds):
            if client.is_connected:
                await client._send_unsubscribe(subscription._id)  # noqa: SLF001
                await asyncio.shield(asyncio.ensure_future(settled(client, on_lost)))
            await subscription._pending_queue.join()  # noqa: SLF001
    with suppress(NatsError):
        await subscription.unsubscribe()


async def _answered(client: Client, on_lost: list[Callable[[], None]]) -> bool:
    """Return whether the server replied to a ping before the connection was lost.

    Only the loss of the connection ends the wait. A timeout of the client would cancel the future
    of the reply, and a reply to a cancelled future ends the read loop of the client.
    """
    if not client.is_connected:
        return False
    lost = asyncio.Event()
    on_lost.append(lost.set)
    answer = asyncio.ensure_future(_ping_twice(client))
    try:
        while client.is_connected and not (lost.is_set() or answer.done()):
            await asyncio.wait({answer}, timeout=PAUSE_SECONDS)
        return answer.done() and answer.exception() is None
    finally:
        on_lost.remove(lost.set)
        answer.cancel()


async def _ping_twice(client: Client) -> None:
    """Wait for the replies to two consecutive pings.

    The client writes a ping immediately, but it queues a subscription. The first ping can therefore
    overtake an earlier subscription. When the reply to the first ping arrives, the queue has been
    written.
    """
    for _ in range(2):
        await client.flush(timeout=NEVER)
