"""API responses that are too large for memory.

They are stored as they arrive, without credentials.
"""

from collections.abc import Callable

import msgspec

from toolbus_executor.results.large.json_scanner import Kind
from toolbus_executor.results.large.spill import SpillBuffer
from toolbus_executor.results.large.spill_registry import MessageSpill, SpillRegistry
from toolbus_executor.transport.http1 import Head

_ERRORS = 400
_LONGEST_MEDIA = 100


class LargeBody(MessageSpill):
    """The stored body of one API response."""

    whole = Kind.TEXT

    def __init__(self, spills: SpillRegistry, strike: Callable[[bytes], bytes]) -> None:
        self.spills = spills
        self._strike = strike
        self._spill: SpillBuffer | None = None

    def begin(self) -> SpillBuffer:
        """Start to store the body, and return its spill buffer."""
        self._spill = super().begin()
        self._spill.strike = self._strike
        return self._spill

    def result(self, head: Head, *, structured: bool) -> bytes | None:
        """Return the result of the call.

        Return None if the response was not too large, or is an error.
        """
        if self._spill is None or head.status >= _ERRORS:
            return None
        extracted = self._spill.extracted[0]
        media = head.headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
        if media and media.isascii() and len(media) <= _LONGEST_MEDIA:
            extracted.media = media.decode()
        content = {"content": [{"type": "text", "text": extracted.name}]}
        # Clients reject a successful result without the structured content that its schema
        # requires.
        return msgspec.json.encode(content | ({"isError": True} if structured else {}))
