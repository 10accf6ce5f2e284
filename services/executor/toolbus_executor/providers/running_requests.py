"""Requests in progress of all providers, which their callers can cancel."""

import asyncio
from typing import Any


class RunningRequests:
    """The tasks of the requests in progress, by call id.

    It outlives the handlers, because a request continues after its provider's configuration has
    changed.
    """

    def __init__(self) -> None:
        self._tasks: dict[str, asyncio.Task[Any] | None] = {}
        self._cancelled: set[str] = set()

    def begin(self, call_id: str) -> None:
        """Store the current task as that of a call."""
        self._tasks[call_id] = asyncio.current_task()

    def end(self, call_id: str) -> bool:
        """Remove a call; return whether its caller cancelled it.

        The cancellation of its task is withdrawn then, so that the task can report the outcome.
        """
        task = self._tasks.pop(call_id, None)
        if call_id not in self._cancelled:
            return False
        self._cancelled.discard(call_id)
        if task is not None:
            task.uncancel()
        return True

    def cancel(self, call_id: str) -> bool:
        """Cancel a call whose caller disconnected. Return whether it is in progress here."""
        task = self._tasks.get(call_id)
        if task is not None and call_id not in self._cancelled:
            self._cancelled.add(call_id)
            task.cancel()
        return call_id in self._tasks
