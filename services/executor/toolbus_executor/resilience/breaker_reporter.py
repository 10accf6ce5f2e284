"""Keeps calls from a server that fails: its breaker, what counts for it, and who is told."""

import logging
from time import monotonic

from toolbus_common.contracts import BreakerClosed, BreakerOpened
from toolbus_common.errors import BreakerOpenError, ToolbusError
from toolbus_common.messaging.event_publisher import EventPublisher
from toolbus_common.observability.metrics import UPSTREAM_OPEN
from toolbus_executor.resilience.circuit_breaker import Breaker, State
from toolbus_executor.resilience.failure_log import Failures, GarbageError
from toolbus_executor.server_events import about_server

log = logging.getLogger(__name__)


class Guard:
    """One server's breaker; events and metrics say when it opens and closes."""

    def __init__(self, name: str, events: EventPublisher) -> None:
        self.name = name
        self.breaker = Breaker()
        self.failures = Failures()
        self.asked = 0  # calls that were let pass
        self._events = events
        self._by_calls = False  # whether calls failed since the last success, and not probes alone
        self._open = UPSTREAM_OPEN.labels(name)
        self._open.set(0)

    @property
    def closed(self) -> bool:
        """Whether calls pass without being probes."""
        return self.breaker.state is State.CLOSED

    def admit(self) -> None:
        """Let a call pass.

        Raises:
            BreakerOpenError: the server failed repeatedly, and it is not its time yet.

        """
        if not self.breaker.admits(monotonic()):
            wait = max(0.0, self.breaker.retry_at - monotonic())
            raise BreakerOpenError(
                f"{self.name} failed repeatedly ({self.failures.last}); "
                f"it is tried again in {wait:.1f} s.",
                sent=False,
                server=self.name,
                retry_after=round(wait, 1),
            )
        self.asked += 1

    def abandoned(self) -> None:
        """A call says nothing of the server: a probe must not be lost with it."""
        self.breaker.abandoned(monotonic())

    def failed(self, *, spared: bool = False) -> None:
        """The server did not answer a call; `spared` where others of its replicas are well."""
        if spared:
            self.abandoned()
            return
        self._by_calls = True
        self._failed()

    def unwell(self, error: ToolbusError) -> None:
        """A health probe failed, which counts as a call that failed."""
        self.failures.note(error)
        self._failed()

    def well(self) -> None:
        """A health probe was answered: it vouches for no call, so it ends what probes began."""
        if not self._by_calls:
            self.succeeded()

    def _failed(self) -> None:
        if self.breaker.failed(monotonic()):
            self._open.set(1)
            log.warning("breaker.opened", extra={"server": self.name})
            about = about_server(self.name, "opened")
            self._events.publish(BreakerOpened(**about, reason=self.failures.last))

    def answered(self, error: ToolbusError, *, spared: bool = False) -> None:
        """Count an error: the server is there, or talks nonsense, or was not even asked."""
        if not error.data.get("sent", True):
            self.abandoned()
        elif isinstance(error, GarbageError):
            self.failed(spared=spared)
        else:
            self.succeeded()

    def succeeded(self) -> None:
        """The server answered."""
        if self.closed and not self.breaker.failing:
            return
        self._by_calls = False
        if self.breaker.succeeded():
            self._open.set(0)
            log.info("breaker.closed", extra={"server": self.name})
            self._events.publish(BreakerClosed(**about_server(self.name, "closed")))
