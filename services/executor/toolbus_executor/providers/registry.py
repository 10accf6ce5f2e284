"""Registry of the configured providers."""

from collections.abc import Mapping
from typing import Any

from toolbus_common.config import Provider
from toolbus_common.service.reconciler import Reconciler
from toolbus_common.service.service import Service
from toolbus_executor.calls.early_cancellations import EarlyCancellations
from toolbus_executor.calls.operator_commands import OperatorCommands
from toolbus_executor.dependencies import Dependencies
from toolbus_executor.providers.cache.embedding_requests import EmbeddingRequests
from toolbus_executor.providers.cache.service import ModelCache
from toolbus_executor.providers.handler import ProviderHandler
from toolbus_executor.providers.running_requests import RunningRequests
from toolbus_executor.providers.supervisor import ProviderSupervisor


class ProviderRegistry:
    """The supervisors of all configured providers.

    A changed provider restarts only its own supervisor.
    """

    def __init__(
        self,
        service: Service,
        commands: OperatorCommands,
        dependencies: Dependencies,
        early_cancellations: EarlyCancellations,
        cache: ModelCache,
    ) -> None:
        self._service = service
        self._commands = commands
        self._dependencies = dependencies
        self._early_cancellations = early_cancellations
        self._cache = cache
        self._embeddings = EmbeddingRequests(self._handler)
        self._running = RunningRequests()
        self._supervisors = Reconciler(self._start, ProviderSupervisor.stop)
        self.cancel = self._running.cancel

    def status(self) -> tuple[dict[str, Any], ...]:
        """Return a status row per provider, sorted by name."""
        supervisors = sorted(self._supervisors, key=lambda each: each.name)
        return tuple(each.status() for each in supervisors)

    async def reconcile(self, configured: Mapping[str, Provider]) -> None:
        """Start and stop supervisors according to the configuration and the operator's commands."""
        await self._supervisors.reconcile(
            {name: (each, self._commands.of(name).resets) for name, each in configured.items()}
        )
        for supervisor in self._supervisors:
            supervisor.handler.drained = self._commands.of(supervisor.name).drained

    async def close(self) -> None:
        """Stop all supervisors."""
        await self._supervisors.close()
        await self._cache.close()

    def _start(self, name: str, entry: tuple[Provider, int]) -> ProviderSupervisor:
        """Start the supervisor of a provider. A changed reset count in `entry` restarts it."""
        supervisor = ProviderSupervisor(
            name, entry[0], self._service, self._dependencies, self._running
        )
        supervisor.handler.early_cancellations = self._early_cancellations
        supervisor.handler.cache = self._cache.of(name, entry[0], self._embeddings.embed)
        return supervisor

    def _handler(self, name: str) -> ProviderHandler | None:
        supervisor = self._supervisors.get(name)
        return supervisor.handler if supervisor is not None else None
