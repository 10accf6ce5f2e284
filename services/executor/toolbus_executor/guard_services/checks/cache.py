"""Cache of verdicts by the digest of the content. It stores no content (no I/O)."""

from collections import OrderedDict
from collections.abc import Callable
from hashlib import sha256
from time import monotonic

import msgspec

from toolbus_common.contracts.guards import ServiceVerdict
from toolbus_executor.guard_services.adapters.base import CheckedContent

MAX_ENTRIES = 4096
LARGEST = 16 << 10  # characters of a changed document that is stored


class VerdictCache:
    """The latest verdicts of one guard, each for `seconds`."""

    def __init__(self, seconds: float, clock: Callable[[], float] = monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._entries: OrderedDict[bytes, tuple[float, ServiceVerdict]] = OrderedDict()

    def find(self, key: bytes) -> ServiceVerdict | None:
        """Return a verdict that is not older than its time; None if there is none."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        if entry[0] <= self._clock():
            del self._entries[key]
            return None
        self._entries.move_to_end(key)
        return entry[1].model_copy(update={"cached": True})

    def store(self, key: bytes, verdict: ServiceVerdict) -> None:
        """Store a verdict. If the cache is full, remove the least recently used verdict."""
        if not self._seconds or len(verdict.content) > LARGEST:
            return
        self._entries[key] = self._clock() + self._seconds, verdict
        self._entries.move_to_end(key)
        if len(self._entries) > MAX_ENTRIES:
            self._entries.popitem(last=False)


def key_of(checked: CheckedContent, *, with_call: bool) -> bytes:
    """Return the digest of a content, its phase, and what else the service receives."""
    call = checked.call
    about = [checked.phase, *((call.customer, call.server, call.tool) if with_call else ())]
    return sha256(msgspec.json.encode(about) + b"\n" + checked.content).digest()
