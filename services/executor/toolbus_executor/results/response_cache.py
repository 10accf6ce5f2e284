"""Answers of tools their operator says only read, told again to who may be told them.

Each replica has its own: what one has learned the others ask for themselves.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from time import monotonic

import msgspec

from toolbus_common.config import ToolCache, ToolView
from toolbus_common.contracts import TOOLS_CALL, CallAdmitted, CallResult, CatalogEntry
from toolbus_common.crypto.canonical_json import UncanonicalError, digest_of
from toolbus_executor.mcp_messages.result_mapping import Ended

LARGEST = 1 << 20  # bytes of one answer
MOST_BYTES = 16 << 20  # of one server's answers
MOST_ENTRIES = 4096
_OVERHEAD = 512  # bytes an entry takes beside its answer


@dataclass(frozen=True, slots=True)
class Key:
    """Whose answer to what; `who` is empty for everybody's."""

    tool: str
    definition: str
    arguments: str
    capabilities: str
    who: tuple[str, ...] | None


class _Hints(msgspec.Struct):
    """What a server says of how long and for whom its answer holds."""

    ttlMs: msgspec.Raw = msgspec.Raw(b"")  # noqa: N815 - the wire's own name
    cacheScope: msgspec.Raw = msgspec.Raw(b"")  # noqa: N815


_hints = msgspec.json.Decoder(_Hints).decode


class ResponseCache:
    """Answers of one server's tools."""

    def __init__(
        self, views: Mapping[str, ToolView], clock: Callable[[], float] = monotonic
    ) -> None:
        self._declared = {name: view.cache for name, view in views.items() if view.cache}
        self._clock = clock
        self._digests: dict[str, str] = {}
        self._kept: OrderedDict[Key, tuple[float, bytes]] = OrderedDict()
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._kept)

    def learn(self, tools: Iterable[CatalogEntry]) -> None:
        """Take note of the definitions; what was answered under others is forgotten."""
        self._digests = {each.name: each.digest for each in tools if each.digest}
        for key in [key for key in self._kept if self._digests.get(key.tool) != key.definition]:
            self._drop(key)

    def key_of(self, call: CallAdmitted) -> Key | None:
        """What a call's answer is kept under; None where it is not to be kept.

        A call with an idempotency key is policy's to repeat; one that hears of progress or logs,
        answers something or wants a task is not done with by an answer.
        """
        cache = self._declared.get(call.tool)
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
        """The raw result of an earlier call, while it holds."""
        found = self._kept.get(key)
        if found is None:
            return None
        if found[0] <= self._clock():
            self._drop(key)
            return None
        self._kept.move_to_end(key)
        return found[1]

    def keep(self, key: Key, raw: bytes, ended: Ended) -> None:
        """Keep an answer, unless it is none that would be given again."""
        cache = self._declared[key.tool]
        seconds = _seconds(cache, key, raw)
        fresh = self._digests.get(key.tool) == key.definition
        whole = isinstance(ended.ending, CallResult) and not (ended.is_error or ended.kept)
        if not (whole and fresh and seconds > 0 and len(raw) <= LARGEST):
            return
        self._drop(key)
        self._kept[key] = (self._clock() + seconds, raw)
        self.bytes += _size(raw)
        while self.bytes > MOST_BYTES or len(self._kept) > MOST_ENTRIES:
            self._drop(next(iter(self._kept)))

    def _drop(self, key: Key) -> None:
        found = self._kept.pop(key, None)
        if found is not None:
            self.bytes -= _size(found[1])


def cache_of(views: Mapping[str, ToolView]) -> ResponseCache | None:
    """The cache of a server; None where no tool of it is declared with one."""
    return ResponseCache(views) if any(view.cache for view in views.values()) else None


def _who(call: CallAdmitted) -> tuple[str, ...]:
    """Whose an answer is: where the server is told who calls, also who acts for them."""
    told = call.identity
    if told is None:
        return call.principal_id, call.customer, call.key
    return call.principal_id, call.customer, call.key, call.user, told.team, *told.actors


def _is_plain(call: CallAdmitted) -> bool:
    return call.method == TOOLS_CALL and not (
        call.extra or call.progress or call.log_level or call.claim
    )


def _seconds(cache: ToolCache, key: Key, raw: bytes) -> float:
    """How long an answer is kept: the server's own word can only shorten what was declared."""
    hints = _hints(raw)
    ttl, scope = bytes(hints.ttlMs), bytes(hints.cacheScope)
    if scope and scope != b'"public"' and key.who is None:
        return 0.0
    if not ttl:
        return cache.ttl
    return min(cache.ttl, int(ttl) / 1000) if ttl.isdigit() and len(ttl) < 16 else 0.0  # noqa: PLR2004


def _size(raw: bytes) -> int:
    return len(raw) + _OVERHEAD
