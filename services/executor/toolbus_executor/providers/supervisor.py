"""Supervision of one provider: its secrets, its connections and its calls."""

import asyncio
import logging
from itertools import chain
from typing import Any

from toolbus_common.concurrency import completely, end, in_background
from toolbus_common.config import Provider
from toolbus_common.contracts import CallAdmitted
from toolbus_common.errors import ToolbusError
from toolbus_common.secrets import SecretError, Values, filled
from toolbus_common.service.service import Service
from toolbus_executor.dependencies import Dependencies
from toolbus_executor.known_secrets import PIECE, KnownSecrets
from toolbus_executor.providers.api_keys import ApiKeys, key_lines
from toolbus_executor.providers.endpoints.authorization import authorization_of
from toolbus_executor.providers.handler import ProviderHandler
from toolbus_executor.providers.http import ProviderClient
from toolbus_executor.providers.model_lists.publisher import ModelListPublisher
from toolbus_executor.providers.running_requests import RunningRequests

log = logging.getLogger(__name__)

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0  # seconds between attempts to read the secrets


class ProviderSupervisor:
    """Supervisor of one configured provider. It runs until the configuration changes."""

    def __init__(
        self,
        name: str,
        provider: Provider,
        service: Service,
        dependencies: Dependencies,
        running: RunningRequests,
    ) -> None:
        self.name = name
        self.handler = ProviderHandler(name, provider, service.events, running)
        self.models = ModelListPublisher(name, provider, service)
        self.handler.guards, self.handler.secrets = dependencies.guards, dependencies.held
        self._provider = provider
        self._service = service
        self._dependencies = dependencies
        self._task = asyncio.create_task(self._run())

    def status(self) -> dict[str, Any]:
        """Return the row of this provider in `toolbus status`."""
        return self.handler.status() | {"tools": len(self._provider.models or self.models.names)}

    async def stop(self, *, removed: bool) -> None:
        """Stop serving calls. Calls in progress continue to their end."""
        await end(self._task)
        if removed:
            await self.models.remove()

    async def _run(self) -> None:
        """Serve calls until the task is cancelled. Restart after unexpected errors."""
        while True:
            try:
                await self._serve()
            except Exception:
                log.exception("provider.internal_error", extra={"server": self.name})
            await asyncio.sleep(FIRST_PAUSE)

    async def _serve(self) -> None:
        """Serve calls, and create another client when a secret changes."""
        pause = FIRST_PAUSE
        secrets = await self._connect()
        await self._service.calls.serve(CallAdmitted, self.name, self.handler.run, "executor")
        self.handler.is_served = True
        try:
            while True:
                if secrets is None:
                    await asyncio.sleep(pause)
                    pause = min(LONGEST_PAUSE, pause * 2)
                else:
                    pause = FIRST_PAUSE
                    client = self.handler.client
                    probes, lists = self.handler.health.watch(client), self.models.follow(client)
                    async with in_background(probes, lists):
                        reason = await self._dependencies.secrets.until_changed(secrets)
                    fields = {"server": self.name, "reason": reason}
                    log.info("provider.secret_changed", extra=fields)
                secrets = await self._connect()
        finally:
            await completely(self._service.calls.leave(CallAdmitted, self.name))
            if self.handler.client is not None:  # still used by calls that wait for a slot
                self.handler.client.close()

    async def _connect(self) -> Values | None:
        """Create the client with the current secrets. Return the secrets; None if it failed."""
        try:
            found = await self._dependencies.secrets.read(_texts_of(self._provider))
            client = self._client(found)
            literal = self._provider.credentials.values()
            self._dependencies.held.renew(f"provider {self.name}", (*found.values(), *literal))
        except (SecretError, ToolbusError, ValueError) as error:
            reason = error.reason if isinstance(error, ToolbusError) else str(error)
            self.handler.why_not = reason
            log.warning("provider.not_ready", extra={"server": self.name, "reason": reason})
            self._replace(None)
            return None
        self._replace(client)
        return found

    def _client(self, found: Values) -> ProviderClient:
        provider = self._provider
        headers = {name: filled(text, found) for name, text in provider.headers.items()}
        values = {name: filled(text, found) for name, text in provider.credentials.items()}
        proxy = filled(provider.proxy, found)
        given = (each for each in (*headers.values(), *values.values()) if len(each) >= PIECE)
        dialer = self._dependencies.dialers.to(provider.endpoint, proxy)
        secrets = KnownSecrets((*found.values(), *given))
        confirmed = self._dependencies.dialers.named
        return ProviderClient(
            provider,
            headers,
            ApiKeys(key_lines(provider.kind, values, provider.weights)),
            secrets,
            dialer,
            authorization_of(provider, values, dialer, secrets, confirmed),
        )

    def _replace(self, client: ProviderClient | None) -> None:
        before, self.handler.client = self.handler.client, client
        if before is not None:
            before.close()


def _texts_of(provider: Provider) -> list[str]:
    """Return the configuration values that can contain references to secrets."""
    values = provider.headers.values(), provider.credentials.values()
    return [provider.proxy, *chain.from_iterable(values)]
