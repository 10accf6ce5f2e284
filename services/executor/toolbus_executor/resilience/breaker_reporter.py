"""Circuit breaker of one server, with its failure log, events and metrics."""

import logging
from time import monotonic

from toolbus_common.circuit_breaker import Breaker, State
from toolbus_common.contracts import BreakerClosed, BreakerOpened
from toolbus_common.errors import BreakerOpenError, ToolbusError
from toolbus_common.messaging.event_publisher import EventPublisher
from toolbus_common.observability.metrics import UPSTREAM_OPEN
from toolbus_executor.resilience.failure_log import FailureLog, GarbageError
from toolbus_executor.server_events import about_server

log = logging.getLogger(__name__)


class BreakerReporter:
    """Circuit breaker of one server. Events and metrics report its state."""

    def __init__(self, name: str, events: EventPublisher) -> None:
        self.name = name
        self.circuit = Breaker()
        self.failures = FailureLog()
        self.call_count = 0  # admitted calls
        self._events = events
        self._by_calls = False  # whether a call has failed since the last success
        self._open = UPSTREAM_OPEN.labels(name)
        self._open.set(0)

    @property
    def closed(self) -> bool:
        """Whether the breaker is closed, so that all calls are admitted."""
        return self.circuit.state is State.CLOSED

    def admit(self) -> None:
        """Admit a call.

        Raises:
            BreakerOpenError: the server failed repeatedly, and the pause has not ended.

        """
        if self.circuit.state is not State.CLOSED and not self.circuit.admits(monotonic()):
            wait = max(0.0, self.circuit.retry_at - monotonic())
            raise BreakerOpenError(
                f"{self.name} failed repeatedly ({self.failures.last}); "
                f"calls are rejected for {wait:.1f} s; retry then.",
                sent=False,
                server=self.name,
                retry_after=round(wait, 1),
            )
        self.call_count += 1

    def abandoned(self) -> None:
        """Release an admitted call that ended without a result.

        The next call can then be the probe.
        """
        self.circuit.abandoned(monotonic())

    def failed(self, *, spared: bool = False) -> None:
        """Count a call without a reply.

        The call is not counted if `spared` is set, because other replicas are healthy.
        """
        if spared:
            self.abandoned()
            return
        self._by_calls = True
        self._failed()

    def unwell(self, error: ToolbusError) -> None:
        """Count a failed health probe as a failed call."""
        self.failures.note(error)
        self._failed()

    def well(self) -> None:
        """Count a successful health probe.

        It resets failures of probes, but not failures of calls.
        """
        if not self._by_calls:
            self.succeeded()

    def _failed(self) -> None:
        if self.circuit.failed(monotonic()):
            self._open.set(1)
            log.warning("breaker.opened", extra={"server": self.name})
            about = about_server(self.name, "opened")
            self._events.publish(BreakerOpened(**about, reason=self.failures.last))

    def answered(self, error: ToolbusError, *, spared: bool = False) -> None:
        """Count a call that ended with an error.

        An invalid reply is a failure. Any other reply is a success. A call that was not sent is not
        counted. `spared` is set if other replicas are healthy.
        """
        if not error.data.get("sent", True):
            self.abandoned()
        elif isinstance(error, GarbageError):
            self.failed(spared=spared)
        else:
            self.succeeded()

    def succeeded(self) -> None:
        """Count a reply."""
        if self.circuit.state is State.CLOSED and not self.circuit.failures:
            return
        self._by_calls = False
        if self.circuit.succeeded():
            self._open.set(0)
            log.info("breaker.closed", extra={"server": self.name})
            self._events.publish(BreakerClosed(**about_server(self.name, "closed")))
