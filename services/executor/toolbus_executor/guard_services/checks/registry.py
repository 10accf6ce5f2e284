"""All guards that ask a service: their secrets, their adapters, and checks for other processes.

The guards of the phases `arguments` and `prompts` are run by policy, those of programs by codemode.
Both send their content here, because only executor connects to other services.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any

from toolbus_common.concurrency import end
from toolbus_common.config import Guard
from toolbus_common.contracts import GuardQuery, ServiceVerdict
from toolbus_common.contracts.guards import CheckedCall
from toolbus_common.errors import GuardFailedError, ToolbusError
from toolbus_common.messaging.event_publisher import EventPublisher
from toolbus_common.secrets import SecretError, Secrets, Values
from toolbus_common.service.reconciler import Reconciler
from toolbus_executor.guard_services.adapters.mcp import CallTool
from toolbus_executor.guard_services.checks.adapters import create_adapter, texts_of
from toolbus_executor.guard_services.checks.service_guard import ServiceGuard
from toolbus_executor.transport.dialer_factory import DialerFactory

log = logging.getLogger(__name__)

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0  # seconds between attempts to read the secrets


class GuardServices:
    """The guards that ask a service, each with a supervisor that restarts if the guard changes."""

    def __init__(
        self,
        events: EventPublisher,
        secrets: Secrets,
        dialers: DialerFactory,
        call_tool: CallTool,
        guards: Callable[[], Mapping[str, Guard]],
    ) -> None:
        self._events = events
        self._secrets = secrets
        self._dialers = dialers
        self._call_tool = call_tool
        self._guards = guards
        self._running = Reconciler(self._start, _Supervisor.stop)
        self._lock = asyncio.Lock()

    async def reconcile(self) -> None:
        """Start and stop supervisors according to the configuration."""
        async with self._lock:
            await self._running.reconcile(
                {name: each for name, each in self._guards().items() if not each.is_built_in}
            )

    async def check(
        self, guard: str, phase: str, call: CheckedCall, content: bytes
    ) -> ServiceVerdict:
        """Return what the service of a guard found. Raises `GuardFailedError`."""
        supervisor = self._running.get(guard)
        if supervisor is None:
            await self.reconcile()  # the configuration may just have arrived
            supervisor = self._running.get(guard)
        if supervisor is None:
            raise GuardFailedError(
                f"The executor's configuration has no guard '{guard}'; retry. If this persists, "
                "check 'toolbus status'.",
                guard=guard,
                phase=phase,
            )
        return await supervisor.part.check(phase, call, content)

    async def answer(self, query: GuardQuery) -> ServiceVerdict:
        """Return the reply to another service. Raises `GuardFailedError`."""
        return await self.check(query.guard, query.phase, query.call, query.content)

    def status(self) -> tuple[dict[str, Any], ...]:
        """Return a status row per guard, sorted by name."""
        return tuple(each.part.status() for _, each in sorted(self._running.items()))

    async def close(self) -> None:
        """Stop all parts."""
        await self._running.close()

    def _start(self, name: str, guard: Guard) -> "_Supervisor":
        part = ServiceGuard(name, guard, self._events)
        return _Supervisor(part, self._secrets, self._create)

    def _create(self, guard: Guard, found: Values) -> Any:
        return create_adapter(guard, found, self._dialers, self._call_tool)


class _Supervisor:
    """One guard, and the task that renews its adapter when a secret changes."""

    def __init__(
        self, part: ServiceGuard, secrets: Secrets, create: Callable[[Guard, Values], Any]
    ) -> None:
        self.part = part
        self._secrets = secrets
        self._create = create
        self._task = asyncio.create_task(self._run())

    async def stop(self, *, removed: bool) -> None:  # noqa: ARG002 - the reconciler's form
        """Stop renewing the adapter. Checks in progress continue to their end."""
        await end(self._task)
        if self.part.adapter is not None:
            self.part.adapter.close()

    async def _run(self) -> None:
        pause = FIRST_PAUSE
        while True:
            try:
                found = await self._renew()
                if found is not None:
                    pause = FIRST_PAUSE
                    reason = await self._secrets.until_changed(found)
                    log.info(
                        "guard.secret_changed", extra={"guard": self.part.name, "reason": reason}
                    )
                    continue
            except Exception:
                log.exception("guard.internal_error", extra={"guard": self.part.name})
            await asyncio.sleep(pause)
            pause = min(LONGEST_PAUSE, pause * 2)

    async def _renew(self) -> Values | None:
        """Create the adapter with the current secrets. Return them; None if that failed."""
        part = self.part
        try:
            found = await self._secrets.read(texts_of(part.guard))
            adapter = self._create(part.guard, found)
        except (SecretError, ToolbusError, ValueError) as error:
            part.why_not = error.reason if isinstance(error, ToolbusError) else str(error)
            fields = {"guard": part.name, "reason": part.why_not}
            log.warning("guard.not_ready", extra=fields)
            adapter, found = None, None
        before, part.adapter = part.adapter, adapter
        part.attempted.set()
        if before is not None:
            before.close()
        return found
