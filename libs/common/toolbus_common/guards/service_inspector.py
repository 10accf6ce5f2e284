"""The inspector of a service: it follows the configuration, and reports failures of guards."""

import logging
from collections.abc import Callable
from time import time

from toolbus_common.config import Configuration
from toolbus_common.contracts.events.guards import GuardCheck, GuardFailed
from toolbus_common.contracts.guards import CheckedCall, ServiceCheck, ServiceVerdict
from toolbus_common.contracts.queries.base import GuardQuery
from toolbus_common.guards.inspector import Inspector
from toolbus_common.guards.placeholders import Placeholders
from toolbus_common.nats.kv_bucket import Bucket
from toolbus_common.nats.topology import PLACEHOLDERS
from toolbus_common.plugins.checks import PluginChecks, UnaskedPlugins
from toolbus_common.plugins.requests import PluginRequests, ejected
from toolbus_common.service.service import Service

log = logging.getLogger(__name__)

LONGEST_QUERY = 60.0  # seconds; the time limit of the guard ends it earlier


class InspectorProvider:
    """The inspector of the current guards, created again when they change.

    `configured` returns the configuration. `ask_service` asks the services of guards; without it,
    executor is asked over the bus.
    """

    def __init__(
        self,
        service: Service,
        configured: Callable[[], Configuration],
        ask_service: ServiceCheck | None = None,
    ) -> None:
        self.plugins = PluginRequests(service.bus, lambda: configured().plugins)
        self._service = service
        self._configured = configured
        self._ask_service = ask_service or self._ask_executor
        self.placeholders = placeholders_of(service)
        self._inspector: Inspector | None = None

    @property
    def inspector(self) -> Inspector:
        """The inspector of the current guards."""
        guards = self._configured().guards
        if self._inspector is None or self._inspector.guards is not guards:
            self._inspector = Inspector(
                guards,
                self._ask_service,
                self.placeholders,
                self._report_open_failure,
                PluginChecks(self.plugins),
            )
        return self._inspector

    @property
    def trial(self) -> Inspector:
        """An inspector of the current guards that stores no values and publishes no events.

        It asks no plugin.
        """
        return Inspector(
            self._configured().guards,
            self._ask_service,
            self.placeholders.unstored,
            plugins=UnaskedPlugins(self.plugins),
        )

    def plugin_details(self) -> dict[str, str]:
        """Return the details of the service about ejected plugins."""
        return ejected(self.plugins)

    async def _ask_executor(
        self, guard: str, phase: str, call: CheckedCall, content: bytes
    ) -> ServiceVerdict:
        query = GuardQuery(guard=guard, phase=phase, call=call, content=content)
        return await self._service.requests.request(query, ServiceVerdict, LONGEST_QUERY)

    def _report_open_failure(self, call: CheckedCall, check: GuardCheck) -> None:
        """Publish the event of a guard that failed and allowed the content."""
        log.warning(
            "guard.failed",
            extra={"guard": check.guard, "phase": check.phase, "reason": check.error},
        )
        event = GuardFailed(
            id=f"{call.call_id}.guard.{check.phase}.{check.guard}",
            at=time(),
            customer=call.customer,
            call_id=call.call_id,
            key=call.key,
            server=call.server,
            tool=call.tool,
            guard=check.guard,
            phase=check.phase,
            reason=check.error,
        )
        self._service.events.publish(event)


def placeholders_of(service: Service) -> Placeholders:
    """Return the placeholders of a service; their key is derived from the person keys' file."""

    async def bucket() -> Bucket:
        return await service.bucket(PLACEHOLDERS)

    files = service.key_file("people", service.settings.people_key_file)
    return Placeholders(lambda: files.keys, bucket)
