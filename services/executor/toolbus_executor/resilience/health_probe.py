"""Health probes of an idle server. They detect a failure before a call is sent."""

import asyncio
import random
from collections.abc import Callable
from contextlib import suppress
from time import time
from typing import Any, Protocol, runtime_checkable

from toolbus_common.errors import ToolbusError, UpstreamTimeoutError
from toolbus_executor.resilience.failure_log import is_failure

PROBE_SECONDS = 5.0  # timeout of a probe
SOON = 2.0  # seconds until the next probe after a failed one


class NoProbeError(Exception):
    """The server does not support probes."""


class NotConnectedError(Exception):
    """The server is currently not connected."""


@runtime_checkable
class Probed(Protocol):
    """An upstream whose protocol has a request without effects."""

    async def probe(self) -> None:
        """Send a probe, and wait for the reply.

        Raises:
            ToolbusError: the server is unavailable, or its reply is invalid.
            TimeoutError: the server did not reply in time.
            NoProbeError: the server does not support probes.

        """
        ...


class ProbeTarget(Protocol):
    """A server that is probed. It counts calls and probe results."""

    @property
    def call_count(self) -> int:
        """Number of calls that were admitted so far."""
        ...

    def unwell(self, error: ToolbusError) -> None:
        """Count a failed probe."""
        ...

    def well(self) -> None:
        """Count a successful probe."""
        ...


class Health:
    """Probes of one server or replica, after `every` idle seconds. 0 disables the probes.

    `idle` returns whether no call is in progress, because some servers process one request at a
    time.
    """

    def __init__(self, every: float, watched: ProbeTarget, idle: Callable[[], bool]) -> None:
        self.latest: dict[str, Any] = {}
        self._every = every
        self._watched = watched
        self._idle = idle

    async def watch(self, upstream: object) -> None:
        """Probe the upstream while it is idle, until the task is cancelled."""
        if not self._every or not isinstance(upstream, Probed):
            return
        with suppress(NoProbeError):
            await self._watch(upstream)

    async def _watch(self, upstream: Probed) -> None:
        pause, before = self._every, -1
        while True:
            await asyncio.sleep(pause * random.uniform(0.8, 1.2))  # noqa: S311
            call_count, pause = self._watched.call_count, self._every
            if self._idle() and call_count == before and not await self._probe(upstream):
                pause = min(pause, SOON)
            before = call_count

    async def _probe(self, upstream: Probed) -> bool:
        """Probe the server, and count the result.

        Return False if the probe failed. If the server is not connected, no result is counted.
        """
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                await upstream.probe()
        except NotConnectedError:
            return True
        except TimeoutError:
            reason = f"The upstream did not respond to a probe within {PROBE_SECONDS:g} s."
            return self._failed(UpstreamTimeoutError(reason))
        except ToolbusError as error:
            if is_failure(error):
                return self._failed(error)
        self.latest = {"at": time(), "ok": True, "reason": ""}
        self._watched.well()
        return True

    def _failed(self, error: ToolbusError) -> bool:
        self.latest = {"at": time(), "ok": False, "reason": error.reason}
        self._watched.unwell(error)
        return False
