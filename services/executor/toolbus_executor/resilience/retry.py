"""Which failed calls are tried again, and how often: a tenth on top of a server's calls at most."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from time import monotonic

from toolbus_common.config import Server
from toolbus_common.contracts import TOOLS_CALL, CallAdmitted
from toolbus_common.errors import ToolbusError, UpstreamDeadError
from toolbus_common.observability.metrics import UPSTREAM_RETRIES

COST = 10  # calls that earn one retry
FLOOR, MOST = 2, 5  # retries there are at the start, and that can be saved while all is well
MOST_OF_A_CALL = 2
FIRST_PAUSE = 0.05  # seconds; doubled each time, and never the same for two calls

# Asks once more with so many seconds left; None where the server may not be asked now.
OnceMore = Callable[[float], Awaitable[bytes] | None]


class RetryBudget:
    """Earned by calls and spent by retries, so that a server that fails always is spared."""

    __slots__ = ("_earned",)

    def __init__(self) -> None:
        self._earned = FLOOR * COST

    def earn(self) -> None:
        """Take note of a call."""
        if self._earned < MOST * COST:
            self._earned += 1

    def spend(self) -> bool:
        """Whether one more retry may be made; then it is paid for."""
        if self._earned < COST:
            return False
        self._earned -= COST
        return True


class Retries:
    """The retries of one server's calls."""

    def __init__(self, name: str, declared: Server) -> None:
        self.budget = RetryBudget()
        self.made = 0
        self._idempotent = frozenset(
            tool for tool, view in declared.tools.items() if view.idempotent
        )
        self._counter = UPSTREAM_RETRIES.labels(name)

    async def after(
        self, error: UpstreamDeadError, call: CallAdmitted, until: float, once_more: OnceMore
    ) -> bytes:
        """What trying again comes to. Raises the last error, as sent if any attempt was."""
        failed: ToolbusError = error
        sent = was_sent(error)
        for number in range(MOST_OF_A_CALL):
            pause = FIRST_PAUSE * 2**number * random.uniform(0.5, 1.5)  # noqa: S311
            in_time = monotonic() + pause < until
            if not (in_time and self._may(call, sent=sent) and self.budget.spend()):
                break
            await asyncio.sleep(pause)
            attempt = once_more(until - monotonic())
            if attempt is None:
                break
            self._count()
            try:
                return await attempt
            except ToolbusError as again:
                failed, sent = again, sent or was_sent(again)
                if not isinstance(again, UpstreamDeadError):
                    break
        if sent:
            failed.data.pop("sent", None)
        raise failed

    def _may(self, call: CallAdmitted, *, sent: bool) -> bool:
        """Only what did not happen, or does no harm by happening twice.

        What travels beside the arguments (answers, tasks) is taken once; and whoever was told of
        progress must not hear it begin again.
        """
        if call.extra:
            return False
        idempotent = call.method == TOOLS_CALL and call.tool in self._idempotent
        return not sent or (idempotent and not call.progress)

    def _count(self) -> None:
        self.made += 1
        self._counter.inc()


def was_sent(error: ToolbusError) -> bool:
    """Whether anything of the call may have reached the server."""
    return bool(error.data.get("sent", True))
