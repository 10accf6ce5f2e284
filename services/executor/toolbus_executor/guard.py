"""Keeps calls from a server that fails: its breaker, what counts for it, and who is told."""

import logging
from time import monotonic

from toolbus_common.contracts import BreakerClosed, BreakerOpened
from toolbus_common.errors import BreakerOpenError, ToolbusError
from toolbus_common.factlane import FactWriter
from toolbus_common.metrics import UPSTREAM_OPEN
from toolbus_executor.about_server import about_server
from toolbus_executor.breaker import Breaker, State
from toolbus_executor.failures import Failures

log = logging.getLogger(__name__)


class Guard:
    """One server's breaker; facts and metrics say when it opens and closes."""

    def __init__(self, name: str, facts: FactWriter) -> None:
        self.name = name
        self.breaker = Breaker()
        self.failures = Failures()
        self._facts = facts
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

    def abandoned(self) -> None:
        """A call says nothing of the server: a probe must not be lost with it."""
        self.breaker.abandoned(monotonic())

    def failed(self) -> None:
        """The server did not answer."""
        if self.breaker.failed(monotonic()):
            self._open.set(1)
            log.warning("breaker.opened", extra={"server": self.name})
            about = about_server(self.name, "opened")
            self._facts.say(BreakerOpened(**about, reason=self.failures.last))

    def answered(self, error: ToolbusError) -> None:
        """Count an error that says the server is there, unless it was not even asked."""
        if error.data.get("sent", True):
            self.succeeded()
        else:
            self.abandoned()

    def succeeded(self) -> None:
        """The server answered."""
        if self.closed and not self.breaker.failing:
            return
        if self.breaker.succeeded():
            self._open.set(0)
            log.info("breaker.closed", extra={"server": self.name})
            self._facts.say(BreakerClosed(**about_server(self.name, "closed")))
