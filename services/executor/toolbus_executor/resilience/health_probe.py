"""Asking an idle server whether it is there, so that a dead one is known before a call meets it."""

import asyncio
import random
from collections.abc import Callable
from contextlib import suppress
from time import time
from typing import Any, Protocol, runtime_checkable

from toolbus_common.errors import ToolbusError, UpstreamTimeoutError
from toolbus_executor.resilience.failure_log import is_failure

PROBE_SECONDS = 5.0  # what an answer may take
SOON = 2.0  # seconds until the next probe where one failed


class UnaskedError(Exception):
    """There is no question that this one would answer."""


class AwayError(Exception):
    """There is nothing to ask at the moment."""


@runtime_checkable
class Probed(Protocol):
    """An upstream whose protocol has a question that asks nothing else."""

    async def probe(self) -> None:
        """Ask it. Raises `ToolbusError` or `TimeoutError`; `UnaskedError` where that is no use."""
        ...


class Watched(Protocol):
    """Whoever keeps count of the calls, and hears what probes find."""

    @property
    def asked(self) -> int:
        """How many calls were made of it so far."""
        ...

    def unwell(self, error: ToolbusError) -> None:
        """A probe failed."""
        ...

    def well(self) -> None:
        """A probe was answered."""
        ...


class Health:
    """The probes of one server or replica; `every` is after how many idle seconds, 0 is never.

    `idle` says whether nothing is under way: a server may be at work on one thing at a time.
    """

    def __init__(self, every: float, watched: Watched, idle: Callable[[], bool]) -> None:
        self.latest: dict[str, Any] = {}
        self._every = every
        self._watched = watched
        self._idle = idle

    async def watch(self, upstream: object) -> None:
        """Probe for as long as this runs. Calls tell as much: who has some is not probed."""
        if not self._every or not isinstance(upstream, Probed):
            return
        with suppress(UnaskedError):
            await self._watch(upstream)

    async def _watch(self, upstream: Probed) -> None:
        pause, before = self._every, -1
        while True:
            await asyncio.sleep(pause * random.uniform(0.8, 1.2))  # noqa: S311
            asked, pause = self._watched.asked, self._every
            if self._idle() and asked == before and not await self._probe(upstream):
                pause = min(pause, SOON)
            before = asked

    async def _probe(self, upstream: Probed) -> bool:
        """Whether it answered."""
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                await upstream.probe()
        except AwayError:
            return True
        except TimeoutError:
            said = f"The upstream did not answer a probe within {PROBE_SECONDS:g} s."
            return self._told(UpstreamTimeoutError(said))
        except ToolbusError as error:
            if is_failure(error):
                return self._told(error)
        self.latest = {"at": time(), "ok": True, "reason": ""}
        self._watched.well()
        return True

    def _told(self, error: ToolbusError) -> bool:
        self.latest = {"at": time(), "ok": False, "reason": error.reason}
        self._watched.unwell(error)
        return False
