"""Extension of the deadlines of calls whose server reports progress, up to a maximum.

Each progress notification costs a clock reading and a comparison. Other services are notified only
if the deadline that they know would be too early: at most once per half idle timeout, and at most
once a second.
"""

import asyncio
from collections.abc import Callable
from time import monotonic, time
from typing import Any

from toolbus_common.config import Server
from toolbus_common.config.servers.timeouts import Timeouts, timeouts_of
from toolbus_common.contracts import TOOLS_CALL, CallAdmitted

SHORTEST_STEP = 1.0  # minimum seconds between two announcements of one call
SLACK_SECONDS = 0.05  # tolerance, because timers can be late

# Publish a call's new deadline, in seconds since the epoch.
Announce = Callable[[CallAdmitted, float], None]
Extend = Callable[[float], None]


class DeadlineExtension:
    """The timeouts of one server's calls. `announce` publishes later deadlines."""

    def __init__(self, declared: Server, announce: Announce) -> None:
        self.usual = timeouts_of(declared)
        self._by_tool = {
            tool: timeouts_of(declared, tool)
            for tool, view in declared.tools.items()
            if view.timeout or view.max_total_timeout
        }
        self.announce = announce

    def timeouts(self, call: CallAdmitted) -> Timeouts:
        """Return the timeouts of a call."""
        if self._by_tool and call.method == TOOLS_CALL:
            return self._by_tool.get(call.tool, self.usual)
        return self.usual


class CallDeadline:
    """The deadline of one call, created at its first progress. Times are monotonic seconds."""

    __slots__ = ("_announce", "_announced", "_call", "_ends", "_extend", "_idle", "_until")

    def __init__(
        self, call: CallAdmitted, began: float, extending: DeadlineExtension, extend: Extend
    ) -> None:
        times = extending.timeouts(call)
        self._call = call
        self._announce, self._extend = extending.announce, extend
        self._idle = times.idle
        self._ends = began + times.total
        self._announced = monotonic() + call.deadline - time()
        self._until = 0.0

    def restart(self) -> None:
        """Restart the idle timeout. The total timeout limits the deadline."""
        now = monotonic()
        self._until = min(now + self._idle, self._ends)
        if self._until > self._announced:
            step = max(self._idle / 2, SHORTEST_STEP)
            self._announced = min(self._until + step, self._ends)
            deadline = time() + self._announced - now
            self._extend(deadline)
            self._announce(self._call, deadline)

    def left(self) -> float:
        """Return the seconds until the deadline; 0 or less after the deadline."""
        return self._until - monotonic()


class Limit:
    """Timer that fails a future with `TimeoutError`.

    If `left` returns more than 0 seconds when the timer ends, the timer continues for that time.
    """

    __slots__ = ("_future", "_left", "_timer")

    def __init__(
        self,
        future: "asyncio.Future[Any]",
        seconds: float,
        left: Callable[[], float] | None,
    ) -> None:
        self._future = future
        self._left = left
        self._timer = future.get_loop().call_later(seconds, self._expire)

    def cancel(self) -> None:
        """Stop the timer."""
        self._timer.cancel()

    def _expire(self) -> None:
        seconds = self._left() if self._left is not None else 0.0
        if seconds > 0:
            self._timer = self._future.get_loop().call_later(seconds, self._expire)
        elif not self._future.done():
            self._future.set_exception(TimeoutError())


def timeout_message(name: str, seconds: float, took: float, times: Timeouts) -> str:
    """Return the reason why a call timed out.

    Args:
        name: the name of the server.
        seconds: the initial time limit.
        took: the duration of the call in seconds.
        times: the configured timeouts.

    """
    if took >= times.total:
        why = (
            f"{name} reported progress but did not respond within {times.total:.3g} s in total "
            "(max_total_timeout)"
        )
    elif took > seconds + SLACK_SECONDS:
        why = f"{name} reported no more progress for {times.idle:.3g} s (timeout)"
    else:
        why = f"{name} did not respond within {seconds:.3g} s"
    return f"{why}; the call may have been executed. Check the audit log before repeating it."
