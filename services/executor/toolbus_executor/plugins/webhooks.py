"""Plugins that are webhooks: executor answers their requests with the responses of a URL.

Only executor connects to URLs outside of Toolbus. The other services therefore request a webhook on
the bus, like any other plugin, and executor forwards the request.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from time import time

import msgspec

from toolbus_common.concurrency import Tasks
from toolbus_common.config import Server
from toolbus_common.config.plugins import Plugin
from toolbus_common.contracts import HookReply
from toolbus_common.errors import BusDownError, ToolbusError
from toolbus_common.nats.connection import Bus, Subscription
from toolbus_common.plugins.subjects import subject_of
from toolbus_common.secrets import SecretError, Secrets, Values, filled
from toolbus_common.service.reconciler import Reconciler
from toolbus_executor.guard_services.adapters.client import ServiceClient
from toolbus_executor.transport.dialer_factory import DialerFactory

log = logging.getLogger(__name__)

AT_ONCE = 64  # requests to one webhook; others wait within their time box


class Webhooks:
    """The webhooks of the current configuration. Only a changed webhook is restarted."""

    def __init__(
        self,
        bus: Bus,
        secrets: Secrets,
        dialers: DialerFactory,
        plugins: Callable[[], Mapping[str, Plugin]],
    ) -> None:
        self._bus = bus
        self._secrets = secrets
        self._dialers = dialers
        self._plugins = plugins
        self._running = Reconciler(self._start, _Webhook.stop)
        self._lock = asyncio.Lock()

    async def reconcile(self) -> None:
        """Start and stop webhooks according to the configuration."""
        async with self._lock:
            await self._running.reconcile(
                {name: each for name, each in self._plugins().items() if each.url}
            )

    async def close(self) -> None:
        """Stop all webhooks."""
        await self._running.close()

    def _start(self, name: str, plugin: Plugin) -> "_Webhook":
        return _Webhook(name, plugin, self._bus, self._secrets, self._dialers)


class _Webhook:
    """One webhook: its subscriptions, and the client of its URL."""

    def __init__(
        self, name: str, plugin: Plugin, bus: Bus, secrets: Secrets, dialers: DialerFactory
    ) -> None:
        self._name = name
        self._plugin = plugin
        self._bus = bus
        self._secrets = secrets
        self._dialers = dialers
        self._client: tuple[Values, ServiceClient] | None = None
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._tasks = Tasks()
        self._subscribing = asyncio.create_task(self._subscribe())

    async def stop(self, *, removed: bool) -> None:  # noqa: ARG002 - the reconciler's form
        """Answer no more requests. Those in progress are answered first."""
        for subscription in await self._subscribing:
            await subscription.stop()
        await self._tasks.finish(self._plugin.timeout)
        if self._client is not None:
            self._client[1].close()

    async def _subscribe(self) -> list[Subscription]:
        subjects = [subject_of(point, self._name) for point in self._plugin.hooks]
        return [
            await self._bus.subscribe(each, self._receive, queue="executor") for each in subjects
        ]

    def _receive(self, data: bytes, _subject: str, reply: str) -> None:
        if reply:
            self._tasks.start(self._answer(data, reply))

    async def _answer(self, data: bytes, reply: str) -> None:
        """Answer one request with the response of the URL."""
        try:
            answer = await self._response(data)
        except TimeoutError:
            return  # the deadline of the request has passed
        except (ToolbusError, SecretError, ValueError, LookupError) as error:
            reason = (
                error.reason
                if isinstance(error, ToolbusError)
                else "its headers or the request are invalid"
            )
            answer = HookReply(verdict="fail", reason=reason[:1000]).encode()
        with suppress(BusDownError):
            await self._bus.publish(reply, answer)

    async def _response(self, data: bytes) -> bytes:
        request = msgspec.json.decode(data, type=dict[str, msgspec.Raw])
        deadline = float(msgspec.json.decode(request["deadline"]))
        async with asyncio.timeout(max(0.0, deadline - time())):
            client = await self._newest_client()
            async with self._slots:
                found = await client.post(client.exact, request, deadline - time())
        return msgspec.json.encode(found)

    async def _newest_client(self) -> ServiceClient:
        """Return the client with the current values of the secrets in the headers."""
        plugin, before = self._plugin, self._client
        values = await self._secrets.read(plugin.headers.values())
        if before is not None and before[0] == values:
            return before[1]
        headers = {name: filled(text, values) for name, text in plugin.headers.items()}
        client = ServiceClient(plugin.url, headers, self._dialers.to(Server(url=plugin.url), ""))
        self._client = values, client
        if before is not None:
            before[1].close()
        return client
