"""What replicas list, side by side: which listing is the server's, and who differs from it."""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from toolbus_common.contracts.records.pin_names import METHODS, PINNED
from toolbus_executor.upstreams.base import Upstream
from toolbus_executor.upstreams.listing import OTHERS, TOOLS, Kind, digests_of, every_page
from toolbus_executor.upstreams.replicas.replica import Replica

log = logging.getLogger(__name__)

KINDS = {kind.method: kind for kind in (TOOLS, *OTHERS)}


class Lister(Protocol):
    """Whose listing it is."""

    weight: int


@dataclass(slots=True)
class Found:
    """What one replica lists of a kind; digests only of what pins hold."""

    entries: list[Any]
    ttl: int | None = None
    digests: dict[str, str] = field(default_factory=dict)

    def page(self, kind: Kind) -> dict[str, Any]:
        """As one page."""
        return {kind.member: self.entries} | ({} if self.ttl is None else {"ttlMs": self.ttl})


async def found(upstream: Upstream, kind: Kind) -> Found:
    """Every page of a list of one replica."""
    ttls: list[int] = []

    async def page(method: str, cursor: str | None) -> dict[str, Any]:
        told = await upstream.list_page(method, cursor)
        ttl = told.get("ttlMs")
        if isinstance(ttl, int) and not isinstance(ttl, bool):
            ttls.append(ttl)
        return told

    entries = await every_page(kind, page)
    digests = await digests_of(kind, entries) if kind.name in PINNED else {}
    return Found(entries, min(ttls, default=None), digests)


async def found_in_time(
    upstreams: Sequence[Upstream], kind: Kind, seconds: float
) -> list[Found | BaseException]:
    """What each lists: who takes longer than `seconds` is left out, unless all do."""
    tasks = [asyncio.create_task(found(each, kind)) for each in upstreams]
    try:
        done, late = await asyncio.wait(tasks, timeout=seconds)
        while late and not any(_well(each) for each in done):
            done, late = await asyncio.wait(late, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        told = await asyncio.gather(*tasks, return_exceptions=True)
    return [TimeoutError() if isinstance(one, asyncio.CancelledError) else one for one in told]


def most(found: Sequence[tuple[Lister, Found]]) -> Found:
    """The listing with the greatest weight behind it; of equals the first. Pure."""
    weights: dict[frozenset[tuple[str, str]], int] = {}
    for lister, listed in found:
        told = frozenset(listed.digests.items())
        weights[told] = weights.get(told, 0) + lister.weight
    return max(found, key=lambda each: weights[frozenset(each[1].digests.items())])[1]


def differing(own: dict[str, str], told: dict[str, str]) -> frozenset[str]:
    """The names of what is listed that a replica does not offer as it was listed. Pure."""
    return frozenset(name for name, digest in told.items() if own.get(name) != digest)


def _well(task: "asyncio.Task[Found]") -> bool:
    return not task.cancelled() and task.exception() is None


def compare(replica: Replica, kind: str, own: dict[str, str], told: dict[str, str]) -> None:
    """Hold back from a replica what it offers otherwise than it was listed."""
    names, methods = differing(own, told), METHODS[kind]
    before = replica.otherwise
    others = {pair for pair in before if pair[0] not in methods}
    replica.otherwise = frozenset(others | {(method, name) for method in methods for name in names})
    if replica.otherwise - before:
        about = {"replica": replica.label, "what": kind, "names": sorted(names)[:10]}
        log.warning("replica.differs", extra=about)


def differs(replica: Replica, tool: str) -> bool:
    """Whether a replica offers a tool otherwise than it was listed."""
    return ("tools/call", tool) in replica.otherwise
