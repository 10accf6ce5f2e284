"""Comparison of a server's lists for clients with different capabilities, within a time limit."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from time import monotonic
from typing import Any

from toolbus_common.concurrency import end
from toolbus_common.contracts import Listing
from toolbus_common.errors import ToolbusError

log = logging.getLogger(__name__)

MAX_SECONDS = 60.0
WAIT_SECONDS = 10.0  # wait of a listing for a result; the next listing uses a late result
BEGIN_SECONDS = 15.0  # for the start of the server and the wait of its first listing
MIN_SECONDS = 1.0


class Comparison:
    """The latest comparison of one server's lists. `changed` requests a new listing."""

    def __init__(self, server: str, changed: Callable[[], None]) -> None:
        self.result: Listing | None = None
        self._server = server
        self._changed = changed
        self._task: asyncio.Task[None] | None = None
        self._until: float | None = None
        self._late = False

    def begin(self) -> None:
        """Start the time limit for connecting the server and its first listing."""
        self._until = monotonic() + BEGIN_SECONDS

    async def wait(self, work: Coroutine[Any, Any, Listing]) -> Listing | None:
        """Return the result of `work`, or of a comparison in progress.

        Return None if it fails or takes too long. A late result is stored for the next listing.
        """
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(work))
        else:
            work.close()
        until, self._until = self._until, None
        seconds = WAIT_SECONDS if until is None else max(MIN_SECONDS, until - monotonic())
        await asyncio.wait((self._task,), timeout=seconds)
        self._late = not self._task.done()
        return None if self._late else self.result

    async def close(self) -> None:
        """Cancel the comparison, if one is in progress."""
        if self._task is not None:
            await end(self._task)

    async def _run(self, work: Coroutine[Any, Any, Listing]) -> None:
        self.result = None
        try:
            async with asyncio.timeout(MAX_SECONDS):
                self.result = await work
        except (ToolbusError, TimeoutError) as error:
            about = {"server": self._server, "reason": str(error)}
            log.info("server.not_compared", extra=about)
            return
        if self._late:
            self._changed()
