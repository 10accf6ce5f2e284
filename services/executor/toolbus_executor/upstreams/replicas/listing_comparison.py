"""Comparison of the lists of replicas: the server's list, and the replicas that differ from it."""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from toolbus_common.contracts.records.pin_names import METHODS, NAMED
from toolbus_executor.resilience.failure_log import why
from toolbus_executor.upstreams.base import Upstream
from toolbus_executor.upstreams.listing import OTHERS, TOOLS, Kind, digests_of, every_page
from toolbus_executor.upstreams.replicas.replica import Replica

PROMPTS = "prompts/list"

log = logging.getLogger(__name__)

KINDS = {kind.method: kind for kind in (TOOLS, *OTHERS)}


class Lister(Protocol):
    """The weight of a list in the comparison."""

    weight: int


@dataclass(slots=True)
class Found:
    """The list of one kind from one replica. `digests` are set for tools and prompts."""

    entries: list[Any]
    ttl: int | None = None
    digests: dict[str, str] = field(default_factory=dict)

    def page(self, kind: Kind) -> dict[str, Any]:
        """Return the list as a single page."""
        return {kind.member: self.entries} | ({} if self.ttl is None else {"ttlMs": self.ttl})


async def found(upstream: Upstream, kind: Kind) -> Found:
    """Return the complete list of one kind from one replica."""
    ttls: list[int] = []

    async def page(method: str, cursor: str | None) -> dict[str, Any]:
        result = await upstream.list_page(method, cursor)
        ttl = result.get("ttlMs")
        if isinstance(ttl, int) and not isinstance(ttl, bool):
            ttls.append(ttl)
        return result

    entries = await every_page(kind, page)
    digests = await digests_of(kind, entries) if kind.name in NAMED else {}
    return Found(entries, min(ttls, default=None), digests)


async def found_in_time(
    upstreams: Sequence[Upstream], kind: Kind, seconds: float
) -> list[Found | BaseException]:
    """Return the list or the error of each upstream.

    Upstreams slower than `seconds` get a `TimeoutError`, unless no upstream is faster.
    """
    tasks = [asyncio.create_task(found(each, kind)) for each in upstreams]
    try:
        done, late = await asyncio.wait(tasks, timeout=seconds)
        while late and not any(_succeeded(each) for each in done):
            done, late = await asyncio.wait(late, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    return [TimeoutError() if isinstance(one, asyncio.CancelledError) else one for one in results]


def majority(found: Sequence[tuple[Lister, Found]]) -> Found:
    """Return the list with the greatest total weight; among equal weights, the first list."""
    weights: dict[frozenset[tuple[str, str]], int] = {}
    for lister, listed in found:
        identity = frozenset(listed.digests.items())
        weights[identity] = weights.get(identity, 0) + lister.weight
    return max(found, key=lambda each: weights[frozenset(each[1].digests.items())])[1]


def differing(own: dict[str, str], listed: dict[str, str]) -> frozenset[str]:
    """Return the names of entries that a replica does not offer exactly as listed."""
    return frozenset(name for name, digest in listed.items() if own.get(name) != digest)


def _succeeded(task: "asyncio.Task[Found]") -> bool:
    return not task.cancelled() and task.exception() is None


def compare(replica: Replica, kind: str, own: dict[str, str], listed: dict[str, str]) -> None:
    """Exclude a replica from calls of entries that it lists differently from the server's list."""
    names, methods = differing(own, listed), METHODS[kind]
    before = replica.otherwise
    others = {pair for pair in before if pair[0] not in methods}
    replica.otherwise = frozenset(others | {(method, name) for method in methods for name in names})
    if replica.otherwise - before:
        about = {"replica": replica.label, "what": kind, "names": sorted(names)[:10]}
        log.warning("replica.differs", extra=about)


def differs(replica: Replica, tool: str) -> bool:
    """Return whether a replica does not offer a tool exactly as listed."""
    return ("tools/call", tool) in replica.otherwise


def note_list(replica: Replica, method: str, listed: Found | BaseException) -> None:
    """Store the list of a replica.

    A replica that cannot list its tools is reconnected. A replica that cannot list its prompts is
    used for tools only.
    """
    if isinstance(listed, Found):
        if method == TOOLS.method:
            replica.tools = listed.digests
        elif method == PROMPTS:
            replica.prompts = listed.digests
    elif method == TOOLS.method:
        replica.cannot_list(why(listed) or "it did not respond in time")
    elif method == PROMPTS:
        replica.prompts = {}
