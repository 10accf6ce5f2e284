"""Response cache for tools that are configured as read-only.

Each executor replica has a separate cache.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from time import monotonic

import msgspec

from toolbus_common.config import ToolCache, ToolView
from toolbus_common.contracts import TOOLS_CALL, CallAdmitted, CallResult, CatalogEntry
from toolbus_common.crypto.canonical_json import UncanonicalError, digest_of
from toolbus_executor.mcp_messages.result_mapping import CallOutcome

LARGEST = 1 << 20  # bytes of one result
MAX_BYTES = 16 << 20  # bytes of all results of one server
MAX_ENTRIES = 4096
_OVERHEAD = 512  # bytes of an entry in addition to its result


@dataclass(frozen=True, slots=True)
class Key:
    """Cache key. `who` is None if all callers share the result."""

    tool: str
    definition: str
    arguments: str
    capabilities: str
    who: tuple[str, ...] | None


class _Hints(msgspec.Struct):
    """The cache lifetime and scope that a server's result declares."""

    ttlMs: msgspec.Raw = msgspec.Raw(b"")  # noqa: N815 - the wire's own name
    cacheScope: msgspec.Raw = msgspec.Raw(b"")  # noqa: N815


_hints = msgspec.json.Decoder(_Hints).decode


class ResponseCache:
    """Cached results of one server's tools."""

    def __init__(
        self, views: Mapping[str, ToolView], clock: Callable[[], float] = monotonic
    ) -> None:
        self._configured = {name: view.cache for name, view in views.items() if view.cache}
        self._clock = clock
        self._digests: dict[str, str] = {}
        self._entries: OrderedDict[Key, tuple[float, bytes]] = OrderedDict()
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def learn(self, tools: Iterable[CatalogEntry]) -> None:
        """Apply new definitions, and drop the results of tools whose definition changed."""
        self._digests = {each.name: each.digest for each in tools if each.digest}
        for key in [key for key in self._entries if self._digests.get(key.tool) != key.definition]:
            self._drop(key)

    def configures(self, tool: str) -> bool:
        """Return whether results of a tool may be cached."""
        return tool in self._configured

    def key_of(self, call: CallAdmitted) -> Key | None:
        """Return the cache key of a call; None if its result must not be cached.

        A call with progress, logs, input responses or a task has effects beyond its result. Policy
        itself replays calls with an idempotency key.
        """
        cache = self._configured.get(call.tool)
        digest = self._digests.get(call.tool)
        if cache is None or digest is None or not _is_plain(call):
            return None
        try:
            arguments = digest_of(msgspec.json.decode(call.arguments))
        except (UncanonicalError, msgspec.DecodeError, RecursionError):
            return None
        who = _who(call) if cache.scope == "private" else None
        return Key(call.tool, digest, arguments, call.capabilities, who)

    def find(self, key: Key) -> bytes | None:
        """Return the cached raw result; None if there is none or it has expired."""
        found = self._entries.get(key)
        if found is None:
            return None
        if found[0] <= self._clock():
            self._drop(key)
            return None
        self._entries.move_to_end(key)
        return found[1]

    def store(self, key: Key, raw: bytes, outcome: CallOutcome) -> None:
        """Store a result if it is complete, successful and small enough."""
        cache = self._configured[key.tool]
        seconds = _seconds(cache, key, raw)
        fresh = self._digests.get(key.tool) == key.definition
        whole = isinstance(outcome.reply, CallResult) and not (outcome.is_error or outcome.kept)
        if not (whole and fresh and seconds > 0 and len(raw) <= LARGEST):
            return
        self._drop(key)
        self._entries[key] = (self._clock() + seconds, raw)
        self.bytes += _size(raw)
        while self.bytes > MAX_BYTES or len(self._entries) > MAX_ENTRIES:
            self._drop(next(iter(self._entries)))

    def _drop(self, key: Key) -> None:
        found = self._entries.pop(key, None)
        if found is not None:
            self.bytes -= _size(found[1])


def cache_of(views: Mapping[str, ToolView]) -> ResponseCache | None:
    """Return the cache of a server; None if no tool has a configured cache."""
    return ResponseCache(views) if any(view.cache for view in views.values()) else None


def _who(call: CallAdmitted) -> tuple[str, ...]:
    """Return the caller's identity for the key of a private result.

    It includes the user and the actors only if the server receives the caller's identity.
    """
    identified = call.identity
    if identified is None:
        return call.principal_id, call.customer, call.key
    return (
        call.principal_id,
        call.customer,
        call.key,
        call.user,
        identified.team,
        *identified.actors,
    )


def _is_plain(call: CallAdmitted) -> bool:
    return call.method == TOOLS_CALL and not (
        call.extra or call.progress or call.log_level or call.claim
    )


def _seconds(cache: ToolCache, key: Key, raw: bytes) -> float:
    """Return the cache lifetime of a result in seconds.

    Hints of the server can shorten the configured lifetime, but not extend it.
    """
    hints = _hints(raw)
    ttl, scope = bytes(hints.ttlMs), bytes(hints.cacheScope)
    if scope and scope != b'"public"' and key.who is None:
        return 0.0
    if not ttl:
        return cache.ttl
    return min(cache.ttl, int(ttl) / 1000) if ttl.isdigit() and len(ttl) < 16 else 0.0  # noqa: PLR2004


def _size(raw: bytes) -> int:
    return len(raw) + _OVERHEAD
