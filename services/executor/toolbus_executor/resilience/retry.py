"""Retries of failed calls. Their number is limited to a tenth of a server's calls."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from time import monotonic

from toolbus_common.config import Server
from toolbus_common.contracts import TOOLS_CALL, CallAdmitted
from toolbus_common.errors import ToolbusError, UpstreamDeadError
from toolbus_common.observability.metrics import UPSTREAM_RETRIES

CALLS_PER_RETRY = 10  # number of calls that permit one retry
START_RETRIES, MAX_SAVED_RETRIES = 2, 5  # initial and maximum number of available retries
MAX_PER_CALL = 2
FIRST_PAUSE = 0.05  # seconds; every further pause is twice as long, with jitter

# Sends the call again; the argument is its timeout in seconds. Returns None if the server must not
# be called now.
SendAgain = Callable[[float], Awaitable[bytes] | None]


class RetryBudget:
    """Budget of retries, which protects a failing server.

    Each call increases the budget, and each retry decreases it.
    """

    __slots__ = ("_earned",)

    def __init__(self) -> None:
        self._earned = START_RETRIES * CALLS_PER_RETRY

    def earn(self) -> None:
        """Increase the budget by the share of one call."""
        if self._earned < MAX_SAVED_RETRIES * CALLS_PER_RETRY:
            self._earned += 1

    def spend(self) -> bool:
        """Charge one retry to the budget. Return False if the budget is too small."""
        if self._earned < CALLS_PER_RETRY:
            return False
        self._earned -= CALLS_PER_RETRY
        return True


class Retries:
    """Retries of one server's calls."""

    def __init__(self, name: str, declared: Server) -> None:
        self.budget = RetryBudget()
        self.made = 0
        self._idempotent = frozenset(
            tool for tool, view in declared.tools.items() if view.idempotent
        )
        self._counter = UPSTREAM_RETRIES.labels(name)

    async def after(
        self, error: UpstreamDeadError, call: CallAdmitted, until: float, send_again: SendAgain
    ) -> bytes:
        """Retry a failed call if that is safe, and return the result.

        If all attempts fail, the last error is raised. Its `sent` is true if any attempt was sent.
        """
        failed: ToolbusError = error
        sent = was_sent(error)
        for number in range(MAX_PER_CALL):
            pause = FIRST_PAUSE * 2**number * random.uniform(0.5, 1.5)  # noqa: S311
            in_time = monotonic() + pause < until
            if not (in_time and self._is_safe(call, sent=sent) and self.budget.spend()):
                break
            await asyncio.sleep(pause)
            attempt = send_again(until - monotonic())
            if attempt is None:
                break
            self._count()
            try:
                return await attempt
            except ToolbusError as next_error:
                failed, sent = next_error, sent or was_sent(next_error)
                if not isinstance(next_error, UpstreamDeadError):
                    break
        if sent:
            failed.data.pop("sent", None)
        raise failed

    def _is_safe(self, call: CallAdmitted, *, sent: bool) -> bool:
        """Return whether a retry is safe: nothing was sent, or the tool is idempotent.

        A call with input responses or a task is never retried, because these can be used only once.
        A call that reports progress is not retried after it was sent, because its progress would
        restart.
        """
        if call.extra:
            return False
        idempotent = call.method == TOOLS_CALL and call.tool in self._idempotent
        return not sent or (idempotent and not call.progress)

    def _count(self) -> None:
        self.made += 1
        self._counter.inc()


def was_sent(error: ToolbusError) -> bool:
    """Return whether any part of the call may have reached the server."""
    return bool(error.data.get("sent", True))
