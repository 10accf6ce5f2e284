"""Reconciliation of running parts with the configuration: one part per configured entry."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Generic, Protocol, TypeVar

from toolbus_common.concurrency import completely

E = TypeVar("E")
P = TypeVar("P")
P_contra = TypeVar("P_contra", contravariant=True)


class Stop(Protocol[P_contra]):
    """Function that stops one part."""

    def __call__(self, part: P_contra, /, *, removed: bool) -> Awaitable[None]:
        """Stop the part. `removed` is set if its entry is no longer configured."""


class Reconciler(Generic[E, P]):
    """The running parts by name, one per configured entry.

    When an entry changes, its part is stopped and a new part is started. All parts to stop are
    stopped concurrently, before any part is started. Parts of unchanged entries continue.
    """

    def __init__(self, start: Callable[[str, E], P], stop: Stop[P]) -> None:
        self._start = start
        self._stop = stop
        self._running: dict[str, tuple[E, P]] = {}

    def __len__(self) -> int:
        return len(self._running)

    def __iter__(self) -> Iterator[P]:
        return iter([part for _, part in self._running.values()])

    def items(self) -> list[tuple[str, P]]:
        """Return the running parts with their names."""
        return [(name, part) for name, (_, part) in self._running.items()]

    def get(self, name: str) -> P | None:
        """Return the running part of an entry; None if there is none."""
        found = self._running.get(name)
        return found[1] if found is not None else None

    async def reconcile(self, configured: Mapping[str, E]) -> None:
        """Stop the parts of changed and removed entries, then start the missing parts."""
        leaving = [
            self._stop(self._running.pop(name)[1], removed=name not in configured)
            for name, (entry, _) in list(self._running.items())
            if configured.get(name) != entry
        ]
        await completely(asyncio.gather(*leaving))
        for name, entry in configured.items():
            if name not in self._running:
                self._running[name] = entry, self._start(name, entry)

    async def close(self) -> None:
        """Stop all parts concurrently. `get` returns each part until all parts have stopped."""
        await completely(asyncio.gather(*(self._stop(part, removed=False) for part in self)))
        self._running.clear()
