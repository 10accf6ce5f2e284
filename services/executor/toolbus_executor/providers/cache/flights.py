"""Requests in progress that equal requests wait for, within one process (no I/O)."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

MAX_WAITING = 1000  # requests of one provider; others are sent at once


class Flights:
    """The requests in progress, by the name of their entry. At most one is known for each name."""

    def __init__(self) -> None:
        self._flights: dict[str, asyncio.Future[bool]] = {}
        self._waiting = 0

    @contextmanager
    def first(self, name: str) -> Iterator[None]:
        """Let equal requests wait until the context ends."""
        flight = asyncio.get_running_loop().create_future()
        self._flights[name] = flight
        was_cancelled = False
        try:
            yield
        except asyncio.CancelledError:
            was_cancelled = True
            raise
        finally:
            del self._flights[name]
            flight.set_result(was_cancelled)

    def has(self, name: str) -> bool:
        """Return whether an equal request is in progress."""
        return name in self._flights

    async def ended(self, name: str, seconds: float) -> bool:
        """Wait until the equal request in progress ends, for at most `seconds`.

        Return whether its caller cancelled it, so that another request should take its place.
        """
        if self._waiting >= MAX_WAITING or seconds <= 0:
            return False
        flight = self._flights[name]
        self._waiting += 1
        try:
            await asyncio.wait((flight,), timeout=seconds)
        finally:
            self._waiting -= 1
        return flight.done() and flight.result()
