"""Guards that ask services, without a bus: real HTTP, with the executor's own connections."""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from time import time
from typing import Any

from harness.services.call_runner import RecordedEvents
from toolbus_common.config import Guard
from toolbus_common.contracts import CheckedCall, ServiceVerdict
from toolbus_common.egress import Allowed, Egress
from toolbus_common.secrets import Secrets, stores_of
from toolbus_executor.guard_services.adapters.mcp import CallTool
from toolbus_executor.guard_services.checks.registry import GuardServices
from toolbus_executor.transport.dialer_factory import DialerFactory

ALLOWED = Egress(Allowed.of("127.0.0.0/8 ::1"))


async def no_tool(server: str, tool: str, arguments: dict[str, Any], seconds: float) -> bytes:
    """Fail: no tool is expected to be called."""
    raise AssertionError((server, tool, arguments, seconds))


class RunningGuards:
    """Guards by name, and the checks of documents."""

    def __init__(self, services: GuardServices, events: RecordedEvents) -> None:
        self.services = services
        self.events = events

    async def check(
        self, guard: str, content: Any, phase: str = "results", seconds: float = 60.0
    ) -> ServiceVerdict:
        """Return the verdict on a document."""
        raw = content if isinstance(content, bytes) else json.dumps(content).encode()
        call = CheckedCall(
            call_id="c-1",
            customer="acme",
            key="k",
            server="docs",
            tool="search",
            deadline=time() + seconds,
        )
        return await self.services.check(guard, phase, call, raw)

    def status(self, guard: str) -> dict[str, Any]:
        """Return the row of a guard in `toolbus status`."""
        return next(each for each in self.services.status() if each["name"] == f"guard:{guard}")


@asynccontextmanager
async def running_guards(
    guards: Mapping[str, Guard],
    *,
    egress: Egress = ALLOWED,
    environ: Mapping[str, str] | None = None,
    call_tool: CallTool = no_tool,
) -> AsyncIterator[RunningGuards]:
    """Run guards until the context ends."""
    events = RecordedEvents()
    secrets = Secrets(stores_of(environ or {}), fresh=60.0)
    dialers = DialerFactory(egress, environ=environ or {})
    services = GuardServices(events, secrets, dialers, call_tool, lambda: guards)
    await services.reconcile()
    try:
        yield RunningGuards(services, events)
    finally:
        await services.close()
